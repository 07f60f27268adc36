// Bad checkpoints: each is refused with a message that names what is wrong.

#include "services/engine/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "services/engine/model.h"
#include "tests/services/engine/checkpoint/bad_checkpoint.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

TEST_F(BadCheckpoint, TheCopyIsGood) { EXPECT_THAT(Model::Load(directory_.string()), IsOk()); }

TEST_F(BadCheckpoint, NoSuchDirectory) {
  EXPECT_THAT(Error("/nowhere"), HasSubstr("/nowhere: no such model directory"));
}

TEST_F(BadCheckpoint, NoConfig) {
  fs::remove(directory_ / "config.json");
  EXPECT_THAT(Error(), AllOf(HasSubstr("cannot read"), HasSubstr("config.json: No such file")));
}

TEST_F(BadCheckpoint, ConfigIsNotJson) {
  std::ofstream(directory_ / "config.json") << "{";
  EXPECT_THAT(Error(), HasSubstr("config.json: not valid JSON at line 1, column 2"));
}

TEST_F(BadCheckpoint, NoWeights) {
  fs::remove(directory_ / "model.safetensors");
  EXPECT_THAT(Error(), HasSubstr("holds neither model.safetensors nor"));
}

TEST_F(BadCheckpoint, TruncatedWeights) {
  fs::resize_file(directory_ / "model.safetensors", fs::file_size(directory_ / "model.safetensors") - 1000);
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.safetensors"), HasSubstr("truncated")));
}

TEST_F(BadCheckpoint, HeaderLongerThanTheFile) {
  std::ofstream(directory_ / "model.safetensors", std::ios::binary)
      << std::string("\xff\xff\x00\x00\x00\x00\x00\x00{}", 10);
  EXPECT_THAT(Error(), HasSubstr("header length 65535"));
}

TEST_F(BadCheckpoint, HeaderIsNotJson) {
  WriteHeader("not json", "");
  EXPECT_THAT(Error(), HasSubstr("the header is not a JSON object"));
}

TEST_F(BadCheckpoint, HeaderIsNotUtf8) {
  WriteHeader("{\"\xff\xfe\": {}}", "");
  EXPECT_THAT(Error(), HasSubstr("not a valid safetensors file"));
}

TEST_F(BadCheckpoint, TensorListedTwice) {
  WriteHeader(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      "12345678");
  EXPECT_THAT(Error(), HasSubstr("tensor 'a' is listed twice"));
}

TEST_F(BadCheckpoint, OverlappingTensors) {
  WriteHeader(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
      "12345678");
  EXPECT_THAT(Error(), HasSubstr("tensors 'a' and 'b' overlap"));
}

TEST_F(BadCheckpoint, BytesOfNoTensor) {
  WriteHeader(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[6,10]}})",
      "1234567890");
  EXPECT_THAT(Error(), HasSubstr("no tensor has the 2 bytes before tensor 'b'"));
  WriteHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678");
  EXPECT_THAT(Error(), HasSubstr("no tensor has the 4 bytes before tensor 'a'"));
  WriteHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12345678");
  EXPECT_THAT(Error(), HasSubstr("no tensor has the last 4 bytes"));
}

TEST_F(BadCheckpoint, OffsetsThatContradictTheShape) {
  WriteHeader(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,4]}})", "12345678");
  EXPECT_THAT(Error(), HasSubstr("tensor 'a' occupies 4 bytes, its shape needs 12"));
}

TEST_F(BadCheckpoint, ShapeThatOverflows) {
  WriteHeader(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,0]}})", "");
  EXPECT_THAT(Error(), HasSubstr("impossibly large"));
}

TEST_F(BadCheckpoint, MissingTensor) {
  RemoveTensor("model.norm.weight");
  EXPECT_THAT(Error(), HasSubstr("tensor 'model.norm.weight' is missing"));
}

TEST_F(BadCheckpoint, WrongShape) {
  ChangeConfig("intermediate_size", 200);
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.layers.0.mlp.gate_proj.weight"), HasSubstr("[176, 64]"),
                             HasSubstr("config.json needs [200, 64]")));
}

TEST_F(BadCheckpoint, WrongDtype) {
  ChangeHeader([](json& header) { header["model.norm.weight"]["dtype"] = "I32"; });
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.norm.weight"), HasSubstr("I32")));
}

TEST_F(BadCheckpoint, NanWeights) {
  std::fstream file(directory_ / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(-4, std::ios::end);
  file.write("\x00\x00\xc0\x7f", 4);
  file.close();
  EXPECT_THAT(Error(), HasSubstr("holds a value that is not finite"));
}

TEST_F(BadCheckpoint, MissingShard) {
  CopyFixture("llama31-rope-scaled");
  fs::remove(directory_ / "model-00002-of-00002.safetensors");
  EXPECT_THAT(Error(), HasSubstr("model-00002-of-00002.safetensors: No such file"));
}

TEST_F(BadCheckpoint, ShardMissingFromTheIndex) {
  CopyFixture("llama31-rope-scaled");
  ChangeIndex([](json& weight_map) {
    for (auto entry = weight_map.begin(); entry != weight_map.end();) {
      entry = *entry == "model-00002-of-00002.safetensors" ? weight_map.erase(entry) : std::next(entry);
    }
  });
  EXPECT_THAT(Error(), AllOf(HasSubstr("tensor 'model."), HasSubstr("is missing"),
                             HasSubstr("no index lists: model-00002-of-00002.safetensors")));
}

TEST_F(BadCheckpoint, TruncatedShard) {
  CopyFixture("llama31-rope-scaled");
  const fs::path shard = directory_ / "model-00002-of-00002.safetensors";
  fs::resize_file(shard, fs::file_size(shard) - 1);
  EXPECT_THAT(Error(), AllOf(HasSubstr(shard.string()), HasSubstr("truncated")));
}

TEST_F(BadCheckpoint, TensorInTwoShards) {
  CopyFixture("llama31-rope-scaled");
  fs::copy(directory_ / "model-00001-of-00002.safetensors", directory_ / "again.safetensors");
  ChangeIndex([](json& weight_map) { weight_map["model.embed_tokens.weight"] = "again.safetensors"; });
  EXPECT_THAT(Error(), AllOf(HasSubstr("tensor 'model."), HasSubstr("is in more than one shard")));
}

TEST_F(BadCheckpoint, TensorNotInTheShardThatTheIndexNames) {
  CopyFixture("llama31-rope-scaled");
  ChangeIndex(
      [](json& weight_map) { weight_map["model.extra.weight"] = "model-00001-of-00002.safetensors"; });
  EXPECT_THAT(Error(), HasSubstr("tensor 'model.extra.weight' is not in it, though the index says so"));
}

TEST_F(BadCheckpoint, IndexThatLeavesTheDirectory) {
  const std::vector<std::string> files = {"../model.safetensors",
                                          "/etc/passwd",
                                          "a/b.safetensors",
                                          "..",
                                          ".",
                                          "",
                                          std::string("model.safetensors\0x", 19)};
  for (const std::string& file : files) {
    fs::remove(directory_ / "model.safetensors");
    std::ofstream(directory_ / "model.safetensors.index.json") << json{{"weight_map", {{"a", file}}}};
    EXPECT_THAT(Error(), HasSubstr("\"a\" has a bad file name")) << file;
  }
}

TEST_F(BadCheckpoint, IndexOfTheWrongKind) {
  const fs::path index = directory_ / "model.safetensors.index.json";
  fs::remove(directory_ / "model.safetensors");
  std::ofstream(index) << "{\"weight_map\": {\"\xff\": \"model.safetensors\"}}";
  EXPECT_THAT(Error(), HasSubstr("index.json: not valid JSON at line 1"));
  std::ofstream(index) << R"({"weight_map": []})";
  EXPECT_THAT(Error(), HasSubstr("index.json: has no 'weight_map'"));
  std::ofstream(index) << R"({"weight_map": {"a": 3}})";
  EXPECT_THAT(Error(), HasSubstr("\"a\" has a bad file name"));
}

TEST_F(BadCheckpoint, JsonFilesThatAreTooDeepOrTooLong) {
  for (const char* file : {"config.json", "model.safetensors.index.json"}) {
    CopyFixture("llama31-rope-scaled");
    std::ofstream(directory_ / file) << "{\"a\":" << std::string(500'000, '[');
    EXPECT_THAT(Error(), HasSubstr(std::string(file) + ": nested deeper than 32 levels"));
    fs::resize_file(directory_ / file, 40 << 20);
    EXPECT_THAT(Error(), HasSubstr(std::string(file) + ": 41943040 bytes long; at most"));
  }
}

TEST_F(BadCheckpoint, ConfigThatIsNoFile) {
  fs::remove(directory_ / "config.json");
  fs::create_directory(directory_ / "config.json");
  EXPECT_THAT(Error(), HasSubstr("config.json: not a regular file"));
}

TEST_F(BadCheckpoint, ConfigThatMayNotBeRead) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  fs::permissions(directory_ / "config.json", fs::perms::none);
  EXPECT_THAT(Error(), AllOf(HasSubstr("cannot read"), HasSubstr("config.json: Permission denied")));
}

TEST_F(BadCheckpoint, NamesWhatIsNotSupported) {
  ChangeConfig("architectures", {"GPT2LMHeadModel"});  // the rest: model_config_test.cc
  EXPECT_THAT(Error(), AllOf(HasSubstr((directory_ / "config.json").string()),
                             HasSubstr("architecture GPT2LMHeadModel is not supported")));
}

TEST_F(BadCheckpoint, NamesTheConfigKeyAtFault) {
  ChangeConfig("num_attention_heads", 0);
  EXPECT_THAT(Error(), HasSubstr("'num_attention_heads' must be a positive integer, is 0"));
  CopyFixture("llama3-gqa");
  ChangeConfig("num_key_value_heads", 3);
  EXPECT_THAT(Error(), HasSubstr("'num_key_value_heads' does not divide"));
  CopyFixture("llama3-gqa");
  ChangeConfig("eos_token_id", 512);
  EXPECT_THAT(Error(), HasSubstr("'eos_token_id' must hold token ids, holds 512"));
  CopyFixture("llama3-gqa");
  ChangeConfig("head_dim", 1 << 30);  // with 8 heads, past 2^31
  EXPECT_THAT(Error(), HasSubstr("'head_dim' times num_attention_heads is impossibly large"));
}

TEST_F(BadCheckpoint, NamesAGenerationConfigAtFault) {
  std::ofstream(directory_ / "generation_config.json") << R"({"eos_token_id": [1, 512]})";
  EXPECT_THAT(Error(), HasSubstr("generation_config.json: 'eos_token_id' must hold token ids, holds 512"));
}

TEST_F(BadCheckpoint, AChatFormatNeedsATokenizer) {
  LoadOptions options;
  options.chat_template = "llama3";
  const auto model = Model::Load(directory_.string(), options);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("tokenizer.json: is missing"));
  options.chat_template = "none";
  EXPECT_THAT(Model::Load(directory_.string(), options), IsOk());
}

TEST(Model, TakesItsTemplateAndStopTokensFromTheCheckpoint) {
  const std::string embedded = std::string(ABSTRACT_SOURCE_DIR) + "/data/models/tiny-llama-refusal";
  LoadOptions options;
  const auto model = Model::Load(embedded, options);
  ASSERT_THAT(model, IsOk());
  ASSERT_TRUE((*model)->chat_template().has_value());
  EXPECT_EQ((*model)->chat_template()->format.name, "llama3");
  // config.json: 2607; generation_config.json: 2604 and 2607.
  EXPECT_THAT((*model)->config().stop_token_ids, testing::UnorderedElementsAre(2604, 2607));
  EXPECT_EQ((*model)->name(), "tiny-llama-refusal");

  options.chat_template = "none";
  options.name = "org/tiny";
  const auto plain = Model::Load(embedded, options);
  ASSERT_THAT(plain, IsOk());
  EXPECT_FALSE((*plain)->chat_template().has_value());
  EXPECT_EQ((*plain)->name(), "org/tiny");

  options.chat_template = "chatml";
  const auto refused = Model::Load(embedded, options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("<|im_start|>"));
}

}  // namespace
}  // namespace mechinterp::engine
