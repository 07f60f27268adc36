#include "services/engine/checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "nlohmann/json.hpp"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// What Meta's Llama-3-8B-Instruct and its relatives have in common.
json Llama3Json() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"bos_token_id", 128000},
          {"eos_token_id", 128009},
          {"hidden_act", "silu"},
          {"hidden_size", 4096},
          {"intermediate_size", 14336},
          {"max_position_embeddings", 8192},
          {"model_type", "llama"},
          {"num_attention_heads", 32},
          {"num_hidden_layers", 32},
          {"num_key_value_heads", 8},
          {"pretraining_tp", 1},
          {"rms_norm_eps", 1e-05},
          {"rope_scaling", nullptr},
          {"rope_theta", 500000.0},
          {"tie_word_embeddings", false},
          {"vocab_size", 128256}};
}

json With(json config, const json& changes) {
  config.update(changes);
  return config;
}

ModelConfig Parse(const json& config) {
  const auto parsed = ParseModelConfig(config.dump(), "config.json");
  EXPECT_THAT(parsed, IsOk());
  return parsed.value_or(ModelConfig());
}

std::string Error(const json& changes, absl::StatusCode code = absl::StatusCode::kUnimplemented) {
  const auto parsed = ParseModelConfig(With(Llama3Json(), changes).dump(), "config.json");
  EXPECT_EQ(parsed.status().code(), code) << parsed.status();
  EXPECT_THAT(std::string(parsed.status().message()), testing::StartsWith("config.json: "));
  return std::string(parsed.status().message());
}

TEST(ParseModelConfig, ReadsLlama3) {
  const ModelConfig config = Parse(Llama3Json());
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.layer_count(), 32);
  EXPECT_EQ(config.head_size, 128);
  EXPECT_EQ(config.key_value_head_count, 8);
  EXPECT_EQ(config.rope_theta, 500000.0);
  EXPECT_FALSE(config.rope_scaling);
  EXPECT_FALSE(config.tied_embeddings);
  EXPECT_EQ(config.begin_token_id, 128000);
  EXPECT_THAT(config.stop_token_ids, ElementsAre(128009));
}

// Llama-3.2-1B-Instruct: tied, scaled, three ends.
TEST(ParseModelConfig, ReadsLlama32) {
  const ModelConfig config = Parse(With(Llama3Json(), {{"hidden_size", 2048},
                                                       {"intermediate_size", 8192},
                                                       {"head_dim", 64},
                                                       {"num_hidden_layers", 16},
                                                       {"max_position_embeddings", 131072},
                                                       {"tie_word_embeddings", true},
                                                       {"eos_token_id", {128001, 128008, 128009}},
                                                       {"rope_scaling",
                                                        {{"factor", 32.0},
                                                         {"high_freq_factor", 4.0},
                                                         {"low_freq_factor", 1.0},
                                                         {"original_max_position_embeddings", 8192},
                                                         {"rope_type", "llama3"}}}}));
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.head_size, 64);
  EXPECT_THAT(config.stop_token_ids, ElementsAre(128001, 128008, 128009));
  ASSERT_TRUE(config.rope_scaling);
  EXPECT_EQ(config.rope_scaling->factor, 32);
  EXPECT_EQ(config.rope_scaling->original_context_length, 8192);
}

TEST(ParseModelConfig, ReadsRopeScalingInAllItsSpellings) {
  const json scaling = {{"factor", 8.0},
                        {"high_freq_factor", 4.0},
                        {"low_freq_factor", 1.0},
                        {"original_max_position_embeddings", 8192}};
  auto scaled = [&](const char* key, json object) {
    const ModelConfig config = Parse(With(Llama3Json(), {{key, std::move(object)}}));
    return config.rope_scaling ? config.rope_scaling->factor : 0;
  };
  EXPECT_EQ(scaled("rope_scaling", With(scaling, {{"rope_type", "llama3"}})), 8);
  EXPECT_EQ(scaled("rope_scaling", With(scaling, {{"type", "llama3"}})), 8);
  EXPECT_EQ(scaled("rope_parameters", With(scaling, {{"rope_type", "llama3"}, {"rope_theta", 1e6}})), 8);
  EXPECT_EQ(scaled("rope_scaling", {{"rope_type", "default"}}), 0);
  EXPECT_EQ(scaled("rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}}), 0);
}

TEST(ParseModelConfig, TakesThetaFromRopeParameters) {
  json config = With(Llama3Json(), {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}}}});
  config.erase("rope_theta");
  EXPECT_EQ(Parse(config).rope_theta, 1e6);
}

// Mistral-Nemo: heads wider than hidden_size / heads, and no window.
TEST(ParseModelConfig, ReadsMistral) {
  json nemo = With(Llama3Json(), {{"architectures", {"MistralForCausalLM"}},
                                  {"head_dim", 128},
                                  {"hidden_size", 5120},
                                  {"sliding_window", nullptr},
                                  {"vocab_size", 131072},
                                  {"eos_token_id", 2}});
  EXPECT_EQ(Parse(nemo).head_size, 128);
  EXPECT_EQ(Parse(nemo).query_width(), 4096);
  EXPECT_EQ(Parse(nemo).architecture, "MistralForCausalLM");
  nemo.erase("sliding_window");
  Parse(nemo);
}

TEST(ParseModelConfig, TakesASlidingWindowThatNeverActs) {
  Parse(With(Llama3Json(), {{"sliding_window", 8192}}));
  Parse(With(Llama3Json(), {{"sliding_window", 4096}, {"use_sliding_window", false}}));
  EXPECT_THAT(Error({{"sliding_window", 4096}}),
              AllOf(HasSubstr("a sliding window (sliding_window 4096"), HasSubstr("is not supported")));
  EXPECT_THAT(Error({{"sliding_window", "x"}}, absl::StatusCode::kInvalidArgument),
              HasSubstr("'sliding_window'"));
  std::vector<std::string> types(32, "full_attention");
  types[1] = "sliding_attention";
  EXPECT_THAT(Error({{"layer_types", types}}), HasSubstr("layer type sliding_attention"));
  types.pop_back();
  EXPECT_THAT(Error({{"layer_types", types}}, absl::StatusCode::kInvalidArgument),
              HasSubstr("'layer_types'"));
}

TEST(ParseModelConfig, ReadsWhatALayerHasFromFamilyAndKeys) {
  const LayerConfig plain;
  EXPECT_EQ(Parse(Llama3Json()).layers, std::vector<LayerConfig>(32, plain));
  EXPECT_EQ(Parse(With(Llama3Json(), {{"attention_bias", true}})).layers[31],
            (LayerConfig{.query_key_value_bias = true, .attention_output_bias = true}));
  EXPECT_EQ(Parse(With(Llama3Json(), {{"mlp_bias", true}})).layers[0], (LayerConfig{.mlp_bias = true}));
  EXPECT_EQ(Parse(With(Llama3Json(), {{"architectures", {"Qwen2ForCausalLM"}}})).layers[5],
            (LayerConfig{.query_key_value_bias = true}));
  EXPECT_EQ(Parse(With(Llama3Json(), {{"architectures", {"Qwen3ForCausalLM"}}})).layers[5],
            (LayerConfig{.query_key_norm = true}));
}

// As transformers 5.12 has them: MistralModel, Qwen2Config.
TEST(ParseModelConfig, ReadsWhereAWindowActs) {
  const auto windows = [](const json& config) {
    std::vector<int> windows;
    for (const LayerConfig& layer : Parse(config).layers) windows.push_back(layer.window);
    return windows;
  };
  const json mistral =
      With(Llama3Json(),
           {{"architectures", {"MistralForCausalLM"}}, {"num_hidden_layers", 3}, {"sliding_window", 4096}});
  EXPECT_THAT(windows(mistral), testing::ElementsAre(4096, 4096, 4096));
  EXPECT_THAT(windows(With(mistral, {{"sliding_window", nullptr}})), testing::Each(0));
  const json qwen = With(mistral, {{"architectures", {"Qwen2ForCausalLM"}}, {"max_window_layers", 2}});
  EXPECT_THAT(windows(qwen), testing::Each(0));
  EXPECT_THAT(windows(With(qwen, {{"use_sliding_window", true}})), testing::ElementsAre(0, 0, 4096));
  EXPECT_THAT(windows(With(qwen, {{"use_sliding_window", true}, {"max_window_layers", 28}})),
              testing::Each(0));
  EXPECT_THAT(
      windows(With(qwen, {{"use_sliding_window", true},
                          {"layer_types", {"sliding_attention", "full_attention", "full_attention"}}})),
      testing::ElementsAre(4096, 0, 0));
}

TEST(ParseModelConfig, IgnoresWhatChangesNothing) {
  Parse(With(Llama3Json(), {{"pretraining_tp", 4}, {"attention_dropout", 0.1}, {"use_cache", false}}));
}

TEST(ParseModelConfig, NamesTheArchitectureAndThoseThatAreSupported) {
  EXPECT_THAT(Error({{"architectures", {"GemmaForCausalLM"}}}),
              AllOf(HasSubstr("architecture GemmaForCausalLM is not supported"),
                    HasSubstr("LlamaForCausalLM"), HasSubstr("MistralForCausalLM")));
  EXPECT_THAT(Error({{"architectures", json::array()}}, absl::StatusCode::kInvalidArgument),
              HasSubstr("'architectures'"));
}

TEST(ParseModelConfig, NamesWhatTheBlocksLack) {
  EXPECT_THAT(Error({{"architectures", {"MistralForCausalLM"}}, {"attention_bias", true}}),
              HasSubstr("attention_bias true for MistralForCausalLM is not supported"));
  EXPECT_THAT(Error({{"architectures", {"Qwen3ForCausalLM"}}, {"mlp_bias", true}}),
              HasSubstr("mlp_bias true for Qwen3ForCausalLM is not supported"));
  EXPECT_THAT(Error({{"hidden_act", "gelu"}}), HasSubstr("hidden_act gelu is not supported"));
  EXPECT_THAT(Error({{"num_experts", 8}}), HasSubstr("a mixture of experts (num_experts 8)"));
  EXPECT_THAT(Error({{"num_local_experts", 8}}), HasSubstr("num_local_experts 8"));
}

TEST(ParseModelConfig, NamesTheRopeTypesThatAreNotSupported) {
  for (const char* type : {"yarn", "dynamic", "linear", "longrope"}) {
    EXPECT_THAT(Error({{"rope_scaling", {{"rope_type", type}, {"factor", 2.0}}}}),
                AllOf(HasSubstr(std::string("rope type \"") + type), HasSubstr("is not supported")));
  }
  EXPECT_THAT(Error({{"partial_rotary_factor", 0.5}}), HasSubstr("partial_rotary_factor 0.5"));
  EXPECT_THAT(Error({{"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}}}),
              HasSubstr("partial_rotary_factor 0.5"));
  Parse(With(Llama3Json(), {{"partial_rotary_factor", 1}}));
}

TEST(ParseModelConfig, NamesTheQuantizationThatIsNotSupported) {
  auto error = [](const json& quantization) { return Error({{"quantization_config", quantization}}); };
  for (const char* method : {"gptq", "awq", "fp8", "compressed-tensors"}) {
    EXPECT_THAT(error({{"quant_method", method}}),
                AllOf(HasSubstr(std::string("quantization by ") + method + " is not supported"),
                      HasSubstr("supported: none, or bitsandbytes NF4")));
  }
  EXPECT_THAT(error({{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}}), HasSubstr("load_in_8bit"));
  const json fp4 = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};
  EXPECT_THAT(error(fp4), HasSubstr("bitsandbytes in fp4"));
  EXPECT_THAT(error(With(fp4, {{"bnb_4bit_quant_type", "fp4"}})), HasSubstr("bitsandbytes in fp4"));
  const json nf4 = With(fp4, {{"bnb_4bit_quant_type", "nf4"}, {"bnb_4bit_quant_storage", "uint8"}});
  Parse(With(Llama3Json(), {{"quantization_config", nf4}}));
  EXPECT_THAT(error(With(nf4, {{"bnb_4bit_quant_storage", "bfloat16"}})),
              HasSubstr("bnb_4bit_quant_storage bfloat16"));
  EXPECT_THAT(Error({{"quantization_config", json::object()}}, absl::StatusCode::kInvalidArgument),
              HasSubstr("quant_method"));
  EXPECT_THAT(Error({{"quantization_config", 4}}, absl::StatusCode::kInvalidArgument),
              HasSubstr("'quantization_config' must be an object"));
}

TEST(ParseModelConfig, NamesSizesThatContradictEachOther) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Error({{"num_key_value_heads", 5}}, invalid),
              HasSubstr("'num_key_value_heads' does not divide"));
  EXPECT_THAT(Error({{"num_attention_heads", 24}}, invalid), HasSubstr("head_dim is missing"));
  EXPECT_THAT(Error({{"head_dim", 63}}, invalid), HasSubstr("must be even"));
  EXPECT_THAT(Error({{"head_dim", 1 << 26}}, invalid), HasSubstr("impossibly large"));
}

TEST(AddGenerationStopTokens, AddsWhatConfigJsonLacks) {
  ModelConfig config = Parse(Llama3Json());
  ASSERT_THAT(AddGenerationStopTokens(R"({"eos_token_id": [128001, 128009]})", "g.json", config), IsOk());
  EXPECT_THAT(config.stop_token_ids, ElementsAre(128009, 128001));
  ASSERT_THAT(AddGenerationStopTokens(R"({"eos_token_id": 5})", "g.json", config), IsOk());
  ASSERT_THAT(AddGenerationStopTokens(R"({"eos_token_id": null})", "g.json", config), IsOk());
  ASSERT_THAT(AddGenerationStopTokens("{}", "g.json", config), IsOk());
  EXPECT_THAT(config.stop_token_ids, ElementsAre(128009, 128001, 5));
}

TEST(AddGenerationStopTokens, NamesWhatIsWrong) {
  ModelConfig config = Parse(Llama3Json());
  auto error = [&](const std::string& text) {
    return std::string(AddGenerationStopTokens(text, "g.json", config).message());
  };
  EXPECT_THAT(error("["), HasSubstr("g.json: not a JSON object"));
  EXPECT_THAT(error(R"({"eos_token_id": 128256})"), HasSubstr("'eos_token_id' must hold token ids"));
}

}  // namespace
}  // namespace mechinterp::engine
