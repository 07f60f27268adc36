#include "services/model/server_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace mechinterp {
namespace {

using engine::DevicePreference;
using engine::NumberFormat;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;

class ServerOptionsTest : public testing::Test {
 protected:
  // What is said to a user; empty when all is well. Sets options_.
  std::string Parse(const std::string& arguments) {
    options_ = {};
    CommandLine command_line("", "abstract-model-server");
    AddServerOptions(command_line.root(), options_);
    const std::vector<std::string> words = absl::StrSplit(arguments, ' ', absl::SkipEmpty());
    std::vector<const char*> argv = {"abstract-model-server"};
    for (const std::string& word : words) argv.push_back(word.c_str());
    std::ostringstream out, err;
    command_line.Parse(static_cast<int>(argv.size()), argv.data(), out, err);
    return out.str() + err.str();
  }

  ServerOptions options_;
};

TEST_F(ServerOptionsTest, LeavesTheChoiceToTheEngine) {
  EXPECT_EQ(Parse(""), "");
  EXPECT_EQ(options_.device, DevicePreference::kAuto);
  EXPECT_FALSE(options_.load.quantization.has_value());
  EXPECT_FALSE(options_.load.head.has_value());
  EXPECT_FALSE(options_.load.compute_type.has_value());
  EXPECT_EQ(options_.load.chat_template, "auto");
  EXPECT_FALSE(options_.load.dequantize_nf4);
  EXPECT_FALSE(options_.load.round_rope_frequencies_to_bfloat16);
  EXPECT_EQ(options_.service.memory_limit_bytes, 0);
}

TEST_F(ServerOptionsTest, WordsStandForValues) {
  EXPECT_EQ(Parse("--device cuda --quantization nf4 --head-quantization int8 --compute-dtype bf16 "
                  "--chat-template mistral --rope-frequencies bfloat16 --double-quant --dequantize-nf4"),
            "");
  EXPECT_EQ(options_.device, DevicePreference::kCuda);
  EXPECT_EQ(**options_.load.quantization, NumberFormat::kNf4);
  EXPECT_EQ(**options_.load.head, NumberFormat::kInt8);
  EXPECT_EQ(options_.load.compute_type, NumberFormat::kBFloat16);
  EXPECT_EQ(options_.load.chat_template, "mistral");
  EXPECT_TRUE(options_.load.round_rope_frequencies_to_bfloat16);
  EXPECT_TRUE(options_.load.double_quantization);
  EXPECT_TRUE(options_.load.dequantize_nf4);
}

TEST_F(ServerOptionsTest, NoneIsAChoiceAndAutoIsNot) {
  EXPECT_EQ(Parse("--quantization none --head-quantization auto --chat-template none"), "");
  ASSERT_TRUE(options_.load.quantization.has_value());
  EXPECT_EQ(*options_.load.quantization, engine::kUnquantized);
  EXPECT_FALSE(options_.load.head.has_value());
  EXPECT_EQ(options_.load.chat_template, "none");
}

TEST_F(ServerOptionsTest, OtherWordsAreRefusedWithThoseThatThereAre) {
  EXPECT_THAT(Parse("--device gpu"), AllOf(HasSubstr("--device"), HasSubstr("auto,cpu,mps,cuda")));
  EXPECT_THAT(Parse("--quantization int8"), HasSubstr("{auto,none,nf4}"));
  EXPECT_THAT(Parse("--help"), HasSubstr("llama3, llama3.1, llama2, chatml"));
}

TEST_F(ServerOptionsTest, MemoryLimitsHaveUnits) {
  EXPECT_EQ(Parse("--memory-limit 6GB"), "");
  EXPECT_EQ(options_.service.memory_limit_bytes, 6'000'000'000);
  EXPECT_EQ(Parse("--memory-limit 6GiB"), "");
  EXPECT_EQ(options_.service.memory_limit_bytes, int64_t{6} << 30);
  EXPECT_EQ(Parse("--memory-limit 12345"), "");
  EXPECT_EQ(options_.service.memory_limit_bytes, 12345);
}

TEST_F(ServerOptionsTest, MemoryLimitsBelowZeroAreRefused) {
  for (const std::string text : {"--memory-limit -5", "--memory-limit=-5", "--memory-limit -6GB"}) {
    EXPECT_THAT(Parse(text), AllOf(HasSubstr("--memory-limit"), HasSubstr("must be at least 0"))) << text;
  }
  EXPECT_THAT(Parse("--memory-limit lots"), HasSubstr("--memory-limit"));
}

TEST_F(ServerOptionsTest, StoredRunsLieInMemoryUnlessAFolderIsNamed) {
  EXPECT_EQ(Parse(""), "");
  EXPECT_EQ(options_.store_directory, "");
  EXPECT_EQ(Parse("--store-directory runs --max-stored-bytes 5 --max-stored-disk-bytes 7"), "");
  EXPECT_EQ(options_.store_directory, "runs");
  EXPECT_EQ(options_.service.max_stored_bytes, 5);
  EXPECT_EQ(options_.service.max_stored_disk_bytes, 7);
  EXPECT_THAT(Parse("--max-stored-disk-bytes 0"), HasSubstr("--max-stored-disk-bytes"));
}

TEST_F(ServerOptionsTest, HelpTellsTheDefaults) {
  // CLI11 writes "=auto", newer ones " [auto]".
  EXPECT_THAT(Parse("--help"), AllOf(ContainsRegex("cuda\\}(=| \\[)auto"), ContainsRegex("(=| \\[)float32")));
}

}  // namespace
}  // namespace mechinterp
