// Bad checkpoints: each is refused with a message that names what is wrong.

#include "services/engine/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "services/engine/checkpoint/model_source.h"
#include "services/engine/forward/executor.h"
#include "services/engine/model.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

// All logits of one prompt.
std::vector<float> LogitsOf(const std::shared_ptr<const Model>& model) {
  DirectExecutor executor(model);
  Segment segment;
  segment.tokens = {3, 14, 15, 92, 6};
  segment.logits_rows = LogitsRows::kAll;
  Segment* const segments[] = {&segment};
  EXPECT_THAT(executor.Run(segments, nullptr), IsOk());
  return segment.logits.values;
}

class BadCheckpoint : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("abstract-bad-checkpoint-" + std::to_string(::getpid()));
    fs::remove_all(directory_);
    fs::create_directories(directory_);
    CopyFixture("llama3-gqa");
  }
  void TearDown() override { fs::remove_all(directory_); }

  void CopyFixture(const std::string& name) {
    fs::remove_all(directory_);
    fs::create_directories(directory_);
    for (const auto& entry : fs::directory_iterator(TestData(name))) {
      const std::string file = entry.path().filename();
      if (file != "expected.safetensors" && file != "cases.json") fs::copy(entry.path(), directory_ / file);
    }
  }
  std::string Error(const std::string& directory) {
    const auto model = Model::Load(directory);
    EXPECT_FALSE(model.ok());
    return std::string(model.status().message());
  }
  std::string Error() { return Error(directory_.string()); }

  void ChangeConfig(const std::string& key, const json& value) {
    json config = json::parse(std::ifstream(directory_ / "config.json"));
    config[key] = value;
    std::ofstream(directory_ / "config.json") << config;
  }
  void ChangeIndex(const std::function<void(json&)>& change) {
    json index = json::parse(std::ifstream(directory_ / "model.safetensors.index.json"));
    change(index["weight_map"]);
    std::ofstream(directory_ / "model.safetensors.index.json") << index;
  }
  // Rewrites the JSON header of model.safetensors.
  void ChangeHeader(const std::function<void(json&)>& change) {
    std::ifstream in(directory_ / "model.safetensors", std::ios::binary);
    std::string content(std::istreambuf_iterator<char>(in), {});
    uint64_t size;
    std::memcpy(&size, content.data(), 8);
    json header = json::parse(content.substr(8, size));
    change(header);
    WriteHeader(header.dump(), content.substr(8 + size));
  }
  void WriteHeader(const std::string& header, const std::string& data) {
    std::ofstream out(directory_ / "model.safetensors", std::ios::binary);
    const uint64_t size = header.size();
    out.write(reinterpret_cast<const char*>(&size), 8);
    out << header << data;
  }

  // Adds zeros in fp32 under a name.
  void AddTensor(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t bytes = 4;
    for (int64_t size : shape) bytes *= size;
    ChangeHeader([&](json& header) {
      int64_t end = 0;
      for (const json& entry : header)
        end = std::max(end, entry.value("/data_offsets/1"_json_pointer, int64_t{0}));
      header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
    });
    std::ofstream(directory_ / "model.safetensors", std::ios::binary | std::ios::app)
        << std::string(bytes, '\0');
  }
  absl::StatusOr<std::shared_ptr<const Model>> Load() { return Model::Load(directory_.string()); }

  fs::path directory_;
};

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

TEST_F(BadCheckpoint, OffsetsThatContradictTheShape) {
  WriteHeader(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,4]}})", "12345678");
  EXPECT_THAT(Error(), HasSubstr("tensor 'a' occupies 4 bytes, its shape needs 12"));
}

TEST_F(BadCheckpoint, ShapeThatOverflows) {
  WriteHeader(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,0]}})", "");
  EXPECT_THAT(Error(), HasSubstr("impossibly large"));
}

TEST_F(BadCheckpoint, MissingTensor) {
  ChangeHeader([](json& header) { header.erase("model.norm.weight"); });
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

TEST_F(BadCheckpoint, TensorsThatTheModelWouldNotUse) {
  const std::string attention = "model.layers.0.self_attn.", mlp = "model.layers.2.mlp.";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {attention + "q_proj.bias", "biases that LlamaForCausalLM with this config.json does not have"},
      {attention + "k_proj.bias", "attention_bias"},
      {attention + "v_proj.bias", "attention_bias"},
      {attention + "o_proj.bias", "attention_bias"},
      {mlp + "gate_proj.bias", "mlp_bias"},
      {mlp + "up_proj.bias", "mlp_bias"},
      {mlp + "down_proj.bias", "mlp_bias"},
      {"lm_head.bias", "biases that LlamaForCausalLM"},
      {"model.norm.bias", "biases that LlamaForCausalLM"},
      {attention + "q_norm.weight", "norms of queries and keys"},
      {attention + "k_norm.weight", "norms of queries and keys"},
      {"model.layers.4.mlp.up_proj.weight", "of layers past the 4 that num_hidden_layers"},
      {"model.layers.11.input_layernorm.weight", "of layers past the 4 that num_hidden_layers"},
      {attention + "q_proj.lora_A.weight", "of an adapter (LoRA): merge it"},
      {"base_model.model.model.layers.0.self_attn.v_proj.lora_B.default.weight", "of an adapter (LoRA)"},
      {"score.weight", "unknown to LlamaForCausalLM"},
      {attention + "q_proj.weight.absmax", "unknown to LlamaForCausalLM"},
  };
  for (const auto& [name, reason] : cases) {
    CopyFixture("llama3-gqa");
    AddTensor(name, {64});
    EXPECT_THAT(Load(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 AllOf(HasSubstr(directory_.string() + ": the files hold tensors"),
                                       HasSubstr("'" + name + "'"), HasSubstr(reason))));
  }
}

TEST_F(BadCheckpoint, ManyUnusedTensorsAreNamedOnce) {
  for (int layer = 0; layer < 4; ++layer) {
    const std::string block = "model.layers." + std::to_string(layer);
    AddTensor(block + ".self_attn.q_proj.bias", {64});
    AddTensor(block + ".mlp.up_proj.bias", {176});
  }
  AddTensor("score.weight", {2, 64});
  EXPECT_THAT(Error(), AllOf(HasSubstr(".bias' and 5 more, biases"), HasSubstr("'score.weight', unknown")));
}

TEST_F(BadCheckpoint, AnnouncedBiasesAreUsed) {
  for (const char* part : {"q", "k", "v", "o"}) {
    for (int layer = 0; layer < 4; ++layer) {
      const bool narrow = *part == 'k' || *part == 'v';
      AddTensor("model.layers." + std::to_string(layer) + ".self_attn." + part + "_proj.bias",
                {narrow ? 16 : 64});
    }
  }
  EXPECT_THAT(Error(), HasSubstr("attention_bias"));
  ChangeConfig("attention_bias", true);
  EXPECT_THAT(Load(), IsOk());
}

// Older checkpoints have the buffers that the frequencies were kept in.
TEST_F(BadCheckpoint, RotaryBuffersAreToldAndLeftOut) {
  AddTensor("model.layers.0.self_attn.rotary_emb.inv_freq", {4});
  AddTensor("model.layers.1.self_attn.rotary_emb.inv_freq", {4});
  AddTensor("model.rotary_emb.inv_freq", {4});
  const auto model = Load();
  ASSERT_THAT(model, IsOk());
  EXPECT_THAT((*model)->load_remarks(),
              testing::ElementsAre(HasSubstr("3 tensors are not used, such as 'model.layers.0")));
  CopyFixture("llama3-gqa");
  EXPECT_THAT((*Load())->load_remarks(), testing::IsEmpty());
}

TEST_F(BadCheckpoint, AnAdapterBesideTheModel) {
  std::ofstream(directory_ / "adapter_config.json") << "{}";
  EXPECT_THAT(Load(), StatusIs(absl::StatusCode::kFailedPrecondition,
                               AllOf(HasSubstr("adapter_config.json"), HasSubstr("merge"))));
}

// Configurations say "tied" and the files hold a head that was trained: transformers uses it.
TEST_F(BadCheckpoint, AHeadThatIsNotTheEmbeddingIsUsed) {
  ChangeConfig("tie_word_embeddings", true);
  const auto model = Load();
  ASSERT_THAT(model, IsOk());
  EXPECT_FALSE((*model)->config().tied_embeddings);
  EXPECT_THAT((*model)->load_remarks(),
              testing::ElementsAre(AllOf(HasSubstr("tie_word_embeddings"), HasSubstr("'lm_head.weight'"))));
  const auto reference = Model::Load(TestData("llama3-gqa"));
  ASSERT_THAT(reference, IsOk());
  EXPECT_EQ((*model)->parameter_count(), (*reference)->parameter_count());
  EXPECT_EQ(LogitsOf(*model), LogitsOf(*reference));
}

TEST_F(BadCheckpoint, AHeadThatIsTheEmbeddingStaysTied) {
  ChangeConfig("tie_word_embeddings", true);
  ChangeHeader([](json& header) { header.erase("lm_head.weight"); });
  const auto tied = Load();
  ASSERT_THAT(tied, IsOk());
  const std::vector<float> expected = LogitsOf(*tied);  // before the file under it changes
  // The embedding's bytes once more under the head's name.
  const HostTensor embedding =
      *ToHostTensor(*Checkpoint::Open(directory_.string())->Find("model.embed_tokens.weight"));
  AddTensor("lm_head.weight", embedding.shape);
  std::fstream file(directory_ / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
  const auto bytes = static_cast<std::streamoff>(embedding.values.size() * sizeof(float));
  file.seekp(-bytes, std::ios::end);
  file.write(reinterpret_cast<const char*>(embedding.values.data()), bytes);
  file.close();
  const auto model = Load();
  ASSERT_THAT(model, IsOk());
  EXPECT_TRUE((*model)->config().tied_embeddings);
  EXPECT_THAT((*model)->load_remarks(), testing::IsEmpty());
  EXPECT_EQ(LogitsOf(*model), expected);
}

TEST_F(BadCheckpoint, ATiedHeadOfAnotherShape) {
  ChangeConfig("tie_word_embeddings", true);
  ChangeHeader([](json& header) { header["lm_head.weight"]["shape"] = {64, 512}; });
  EXPECT_THAT(Error(),
              AllOf(HasSubstr("'lm_head.weight' has shape [64, 512]"), HasSubstr("needs [512, 64]")));
}

TEST_F(BadCheckpoint, TiedByWhatIsNoBoolean) {
  ChangeConfig("tie_word_embeddings", "true");
  EXPECT_THAT(Error(), HasSubstr("'tie_word_embeddings' must be true or false"));
}

// As transformers, which looks for the single file first.
TEST_F(BadCheckpoint, ASingleFileGoesBeforeAnOlderIndex) {
  fs::copy(directory_ / "model.safetensors", directory_ / "model-00001-of-00001.safetensors");
  ChangeHeader([](json& header) {
    std::swap(header["model.norm.weight"], header["model.layers.0.input_layernorm.weight"]);
  });
  json weight_map;
  const auto plain = Checkpoint::Open(TestData("llama3-gqa"));
  ASSERT_THAT(plain, IsOk());
  for (const auto& [name, view] : plain->tensors()) {
    weight_map[name] = "model-00001-of-00001.safetensors";
  }
  std::ofstream(directory_ / "model.safetensors.index.json") << json{{"weight_map", weight_map}};
  const auto single = Load();
  ASSERT_THAT(single, IsOk());
  EXPECT_NE(LogitsOf(*single), LogitsOf(*Model::Load(TestData("llama3-gqa"))));
  EXPECT_THAT((*single)->load_remarks(), testing::ElementsAre(HasSubstr("model.safetensors is read")));
  // Whatever is wrong with the index.
  std::ofstream(directory_ / "model.safetensors.index.json") << "{";
  EXPECT_THAT(Load(), IsOk());
  fs::remove(directory_ / "model.safetensors");
  EXPECT_THAT(Error(), HasSubstr("index.json: not valid JSON"));
}

TEST_F(BadCheckpoint, WhatADownloadLeavesInAFilesPlace) {
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 132\n";
  const std::string page = "<!DOCTYPE html>\n<html class=\"\"><head><title>Sign in</title></head></html>\n";
  for (const char* file : {"model.safetensors", "config.json", "generation_config.json"}) {
    CopyFixture("llama3-gqa");
    std::ofstream(directory_ / file) << pointer;
    EXPECT_THAT(Error(),
                AllOf(HasSubstr(std::string(file) + " is a Git LFS pointer"), HasSubstr("git lfs pull")));
    std::ofstream(directory_ / file) << page;
    EXPECT_THAT(Error(), HasSubstr(std::string(file) + " is an HTML page"));
  }
  CopyFixture("llama31-rope-scaled");
  std::ofstream(directory_ / "model-00002-of-00002.safetensors") << pointer;
  EXPECT_THAT(Error(), HasSubstr("model-00002-of-00002.safetensors is a Git LFS pointer"));
  std::ofstream(directory_ / "model.safetensors.index.json") << page;
  EXPECT_THAT(Error(), HasSubstr("model.safetensors.index.json is an HTML page"));
}

TEST_F(BadCheckpoint, MetadataOfNullIsNone) {
  ChangeHeader([](json& header) { header["__metadata__"] = nullptr; });
  EXPECT_THAT(Load(), IsOk());
}

TEST_F(BadCheckpoint, WhatPythonWritesIntoJson) {
  for (const char* value : {"NaN", "Infinity", "-Infinity"}) {
    CopyFixture("llama3-gqa");
    std::ifstream in(directory_ / "config.json");
    std::string text(std::istreambuf_iterator<char>(in), {});
    in.close();
    std::ofstream(directory_ / "config.json") << "{\n \"rms_norm_eps\": " << value << ",\n" << text.substr(1);
    EXPECT_THAT(Error(),
                AllOf(HasSubstr("config.json: not valid JSON at line 2, column "), HasSubstr("Python")));
  }
  CopyFixture("llama3-gqa");
  std::ofstream(directory_ / "generation_config.json") << "{\n \"eos_token_id\": 1,\n}";
  EXPECT_THAT(Error(), HasSubstr("generation_config.json: not valid JSON at line 3, column 1: a comma"));
}

TEST_F(BadCheckpoint, PipesHangNobody) {
  for (const char* file :
       {"config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"}) {
    CopyFixture("llama3-gqa");
    fs::remove(directory_ / file);
    if (std::string(file) == "model.safetensors.index.json") fs::remove(directory_ / "model.safetensors");
    ASSERT_EQ(::mkfifo((directory_ / file).c_str(), 0600), 0);
    EXPECT_THAT(Error(), AllOf(HasSubstr(file), HasSubstr("not a regular file")));
  }
  EXPECT_THAT(ResolveModelSource((directory_ / "model.safetensors.index.json").string(), ""),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(BadCheckpoint, TheGenerationConfigsEndTokensReplaceTheConfigs) {
  ChangeConfig("eos_token_id", {1, 2});
  EXPECT_THAT((*Load())->config().stop_token_ids, testing::ElementsAre(1, 2));
  std::ofstream(directory_ / "generation_config.json") << R"({"eos_token_id": [3, 4]})";
  EXPECT_THAT((*Load())->config().stop_token_ids, testing::ElementsAre(3, 4));
}

// A <pad> that was added to the tokenizer and never to the model.
class TokensPastTheEmbedding : public BadCheckpoint {
 protected:
  void SetUp() override {
    BadCheckpoint::SetUp();
    fs::remove_all(directory_);
    fs::copy(std::string(ABSTRACT_SOURCE_DIR) + "/data/models/tiny-llama-refusal", directory_);
  }
  void AddToken(const json& changes) {
    json tokenizer = json::parse(std::ifstream(directory_ / "tokenizer.json"));
    json token = tokenizer["added_tokens"].back();
    token.update({{"id", 2608}, {"content", "<pad>"}});
    token.update(changes);
    tokenizer["added_tokens"].push_back(token);
    std::ofstream(directory_ / "tokenizer.json") << tokenizer;
  }
};

TEST_F(TokensPastTheEmbedding, MayBeSpecialOnes) {
  AddToken(json::object());
  const auto model = Load();
  ASSERT_THAT(model, IsOk());
  EXPECT_EQ((*model)->config().vocabulary_size, 2608);
  EXPECT_THAT((*model)->load_remarks(),
              testing::ElementsAre(AllOf(HasSubstr("from id 2608 on"), HasSubstr("<pad>"))));
}

TEST_F(TokensPastTheEmbedding, MustNotBeOrdinaryOnes) {
  AddToken({{"special", false}});
  EXPECT_THAT(Error(), AllOf(HasSubstr("tokenizer.json: has 2609 tokens, the model only 2608"),
                             HasSubstr("only special tokens may be left unused")));
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
