#include "services/engine/tokenizer/text_frame.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using ::nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const json kByteLevel = {
    {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
// Both ends, unlike anything that the classes make.
const json kBothEnds = {{"type", "RobertaProcessing"},
                        {"cls", {"<|start_header_id|>", kStartHeader}},
                        {"sep", {"<|end_header_id|>", kEndHeader}}};

std::shared_ptr<const Tokenizer> WithPostProcessor(const json& post_processor) {
  json tokenizer = SmallTokenizerJson();
  tokenizer["post_processor"] = post_processor;
  return LoadTokenizer(tokenizer).value();
}

TokenizerConfig Config(const std::string& tokenizer_class, std::optional<bool> add_bos_token,
                       std::optional<bool> add_eos_token) {
  TokenizerConfig config;
  config.special_tokens = {{"bos_token", "<|begin_of_text|>"}, {"eos_token", "<|eot_id|>"}};
  config.tokenizer_class = tokenizer_class;
  config.add_bos_token = add_bos_token;
  config.add_eos_token = add_eos_token;
  return config;
}

// What transformers 4 makes of it: update_post_processor of LlamaTokenizerFast and of those that copy it.
// Unset: the file's post-processor counts, as in transformers 5.
struct FrameCase {
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> begins;
  bool ends = false;
};

constexpr std::optional<bool> kAbsent;

class FramingClasses : public testing::TestWithParam<std::string> {};

TEST_P(FramingClasses, PutTheirOwnInThePostProcessorsPlaceWhereTheyAreToldTo) {
  const bool begins = GetParam().rfind("GPTNeoX", 0) != 0;
  for (const FrameCase& tried : {FrameCase{kAbsent, kAbsent, kAbsent},
                                 FrameCase{kAbsent, false, begins},
                                 {kAbsent, true, begins, true},
                                 {false, kAbsent, false},
                                 {false, false, false},
                                 {false, true, false, true},
                                 {true, kAbsent, true},
                                 {true, false, true},
                                 {true, true, true, true}}) {
    for (const json& post_processor : {json(nullptr), kByteLevel, kBothEnds}) {
      const auto tokenizer = WithPostProcessor(post_processor);
      const absl::StatusOr<TextFrame> frame =
          TextFrameOf(*tokenizer, Config(GetParam(), tried.add_bos_token, tried.add_eos_token));
      ASSERT_THAT(frame, IsOk());
      std::vector<TokenId> before = tokenizer->tokens_before();
      std::vector<TokenId> after = tokenizer->tokens_after();
      if (tried.begins.has_value()) {
        before = *tried.begins ? std::vector<TokenId>{kBeginOfText} : std::vector<TokenId>();
        after = tried.ends ? std::vector<TokenId>{kEndOfTurn} : std::vector<TokenId>();
      }
      EXPECT_EQ(frame->before, before) << post_processor;
      EXPECT_EQ(frame->after, after) << post_processor;
      const bool as_the_file = before == tokenizer->tokens_before() && after == tokenizer->tokens_after();
      EXPECT_EQ(frame->remark.empty(), as_the_file) << frame->remark;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Names, FramingClasses,
                         testing::Values("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer",
                                         "CodeLlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast",
                                         "CohereTokenizerFast", "GPTNeoXTokenizerFast"));

TEST(TextFrame, IsThePostProcessorsWithAnyOtherClass) {
  for (const char* other : {"", "Fast", "PreTrainedTokenizerFast", "TokenizersBackend", "Qwen2Tokenizer",
                            "GPT2TokenizerFast", "MyLlamaTokenizer", "LlamaTokenizerFastFast"}) {
    for (const json& post_processor : {kByteLevel, kBothEnds}) {
      for (const bool told : {false, true}) {
        const auto tokenizer = WithPostProcessor(post_processor);
        const absl::StatusOr<TextFrame> frame = TextFrameOf(*tokenizer, Config(other, told, told));
        ASSERT_THAT(frame, IsOk());
        EXPECT_EQ(frame->before, tokenizer->tokens_before()) << other;
        EXPECT_EQ(frame->after, tokenizer->tokens_after()) << other;
        EXPECT_EQ(frame->remark, "");
      }
    }
  }
}

TEST(TextFrame, RemarksWhatIsOtherwiseThanThePostProcessorSays) {
  const auto tokenizer = WithPostProcessor(kByteLevel);
  const auto frame = TextFrameOf(*tokenizer, Config("LlamaTokenizerFast", true, false));
  ASSERT_THAT(frame, IsOk());
  EXPECT_THAT(
      frame->remark,
      AllOf(HasSubstr("add_bos_token"), HasSubstr("LlamaTokenizer"),
            HasSubstr("around a raw text stand \"<|begin_of_text|>\" and nothing, not nothing and nothing")));
}

TEST(TextFrame, TakesTheClassesOwnNamesWhereNoneIsWritten) {
  json tokenizer_json = SmallTokenizerJson();
  for (const auto& [id, content] : {std::pair(300, "<s>"), std::pair(301, "</s>")}) {
    tokenizer_json["added_tokens"].push_back({{"id", id}, {"content", content}, {"special", true}});
  }
  const auto tokenizer = LoadTokenizer(tokenizer_json).value();
  TokenizerConfig config = Config("LlamaTokenizer", true, true);
  config.special_tokens.clear();
  const auto frame = TextFrameOf(*tokenizer, config);
  ASSERT_THAT(frame, IsOk());
  EXPECT_THAT(frame->before, ElementsAre(300));
  EXPECT_THAT(frame->after, ElementsAre(301));
}

TEST(TextFrame, IsRefusedWhereItsTokenIsMissing) {
  TokenizerConfig config = Config("LlamaTokenizer", true, false);
  config.special_tokens.clear();
  EXPECT_THAT(TextFrameOf(*SmallTokenizer(), config).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("'add_bos_token' is true"), HasSubstr("\"<s>\""))));
  config = Config("LlamaTokenizer", false, true);
  config.special_tokens["eos_token"] = "<end>";
  EXPECT_THAT(TextFrameOf(*SmallTokenizer(), config).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("'add_eos_token' is true"), HasSubstr("\"<end>\""))));
  // Nobody asks for what is switched off.
  config.add_eos_token = false;
  EXPECT_THAT(TextFrameOf(*SmallTokenizer(), config)->after, IsEmpty());
}

}  // namespace
}  // namespace mechinterp::engine
