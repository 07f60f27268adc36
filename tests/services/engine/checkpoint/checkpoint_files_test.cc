// Files that hold more than the model uses, contradict each other, or are not what their names
// say: what is taken, and what is said.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "services/engine/checkpoint/checkpoint.h"
#include "services/engine/checkpoint/model_source.h"
#include "services/engine/forward/executor.h"
#include "services/engine/model.h"
#include "tests/services/engine/checkpoint/bad_checkpoint.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class CheckpointFilesTest : public BadCheckpoint {};

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

TEST_F(CheckpointFilesTest, TensorsThatTheModelWouldNotUse) {
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

TEST_F(CheckpointFilesTest, ManyUnusedTensorsAreNamedOnce) {
  for (int layer = 0; layer < 4; ++layer) {
    const std::string block = "model.layers." + std::to_string(layer);
    AddTensor(block + ".self_attn.q_proj.bias", {64});
    AddTensor(block + ".mlp.up_proj.bias", {176});
  }
  AddTensor("score.weight", {2, 64});
  EXPECT_THAT(Error(), AllOf(HasSubstr(".bias' and 5 more, biases"), HasSubstr("'score.weight', unknown")));
}

TEST_F(CheckpointFilesTest, AnnouncedBiasesAreUsed) {
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
TEST_F(CheckpointFilesTest, RotaryBuffersAreToldAndLeftOut) {
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

TEST_F(CheckpointFilesTest, AnAdapterBesideTheModel) {
  std::ofstream(directory_ / "adapter_config.json") << "{}";
  EXPECT_THAT(Load(), StatusIs(absl::StatusCode::kFailedPrecondition,
                               AllOf(HasSubstr("adapter_config.json"), HasSubstr("merge"))));
}

// Configurations say "tied" and the files hold a head that was trained: transformers uses it.
TEST_F(CheckpointFilesTest, AHeadThatIsNotTheEmbeddingIsUsed) {
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

TEST_F(CheckpointFilesTest, AHeadThatIsTheEmbeddingStaysTied) {
  ChangeConfig("tie_word_embeddings", true);
  RemoveTensor("lm_head.weight");
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

TEST_F(CheckpointFilesTest, ATiedHeadOfAnotherShape) {
  ChangeConfig("tie_word_embeddings", true);
  ChangeHeader([](json& header) { header["lm_head.weight"]["shape"] = {64, 512}; });
  EXPECT_THAT(Error(),
              AllOf(HasSubstr("'lm_head.weight' has shape [64, 512]"), HasSubstr("needs [512, 64]")));
}

TEST_F(CheckpointFilesTest, TiedByWhatIsNoBoolean) {
  ChangeConfig("tie_word_embeddings", "true");
  EXPECT_THAT(Error(), HasSubstr("'tie_word_embeddings' must be true or false"));
}

// As transformers, which looks for the single file first.
TEST_F(CheckpointFilesTest, ASingleFileGoesBeforeAnOlderIndex) {
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

TEST_F(CheckpointFilesTest, WhatADownloadLeavesInAFilesPlace) {
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

TEST_F(CheckpointFilesTest, MetadataOfNullIsNone) {
  ChangeHeader([](json& header) { header["__metadata__"] = nullptr; });
  EXPECT_THAT(Load(), IsOk());
}

TEST_F(CheckpointFilesTest, WhatPythonWritesIntoJson) {
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

TEST_F(CheckpointFilesTest, PipesHangNobody) {
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

TEST_F(CheckpointFilesTest, TheGenerationConfigsEndTokensReplaceTheConfigs) {
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

}  // namespace
}  // namespace mechinterp::engine
