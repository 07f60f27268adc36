#include "services/engine/checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>
#include <utility>

#include "nlohmann/json.hpp"
#include "tests/services/engine/fixture.h"
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
  EXPECT_EQ(std::get<Llama3Rope>(*config.rope_scaling).factor, 32);
  EXPECT_EQ(std::get<Llama3Rope>(*config.rope_scaling).original_context_length, 8192);
}

// rope_configs.json: configurations and what transformers 5 makes of them. llama3 scaling is
// of factor 8 from 1 to 4 in 64 positions, linear of factor 4, dynamic of factor 2.
TEST(ParseModelConfig, ReadsRopeSettingsAsTransformersDoes) {
  const json cases = json::parse(std::ifstream(TestData("rope_configs.json")));
  ASSERT_EQ(cases.size(), 19u);
  for (const json& test_case : cases) {
    const std::string means = test_case["means"];
    SCOPED_TRACE(test_case["name"].get<std::string>());
    json base = Llama3Json();
    base.erase("rope_theta");
    base.erase("rope_scaling");
    const auto parsed = ParseModelConfig(With(base, test_case["config"]).dump(), "config.json");
    if (means == "error" || means == "refused") {
      EXPECT_EQ(parsed.status().code(),
                means == "error" ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kUnimplemented);
      continue;
    }
    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(parsed->rope_theta, 5e5);
    if (means == "5e5") {
      EXPECT_FALSE(parsed->rope_scaling);
    } else if (means == "5e5+linear") {
      EXPECT_EQ(std::get<LinearRope>(parsed->rope_scaling.value()).factor, 4);
    } else if (means == "5e5+dynamic") {
      EXPECT_EQ(std::get<DynamicRope>(parsed->rope_scaling.value()).factor, 2);
    } else {
      ASSERT_EQ(means, "5e5+llama3");
      const auto& rope = std::get<Llama3Rope>(parsed->rope_scaling.value());
      EXPECT_EQ(rope.factor, 8);
      EXPECT_EQ(rope.low_freq_factor, 1);
      EXPECT_EQ(rope.high_freq_factor, 4);
      EXPECT_EQ(rope.original_context_length, 64);
    }
  }
}

TEST(ParseModelConfig, TakesThetaFromWhereItStands) {
  json config = Llama3Json();
  config.erase("rope_theta");
  EXPECT_EQ(Parse(config).rope_theta, 10000);
  EXPECT_EQ(Parse(With(config, {{"rope_parameters", {{"rope_theta", 1e6}}}})).rope_theta, 1e6);
  EXPECT_EQ(Parse(With(config, {{"rope_scaling", {{"rope_theta", 1e6}}}, {"rope_theta", 5e5}})).rope_theta,
            1e6);
  EXPECT_THAT(Error({{"rope_theta", 0}}, absl::StatusCode::kInvalidArgument), HasSubstr("'rope_theta'"));
  EXPECT_THAT(Error({{"rope_theta", 1}}, absl::StatusCode::kInvalidArgument), HasSubstr("larger than 1"));
}

TEST(ParseModelConfig, ReadsYarn) {
  const auto yarn = [](const json& changes) {
    const json rope = With({{"rope_type", "yarn"}, {"factor", 4.0}}, changes);
    return std::get<YarnRope>(Parse(With(Llama3Json(), {{"rope_scaling", rope}})).rope_scaling.value());
  };
  const YarnRope plain = yarn(json::object());
  EXPECT_EQ(plain.factor, 4);
  EXPECT_EQ(plain.original_context_length, 8192);  // max_position_embeddings
  EXPECT_EQ(plain.beta_fast, 32);
  EXPECT_EQ(plain.beta_slow, 1);
  EXPECT_TRUE(plain.truncate);
  EXPECT_DOUBLE_EQ(plain.attention_factor, 0.1 * std::log(4) + 1);
  EXPECT_EQ(yarn({{"attention_factor", 0.75}, {"mscale", 2}, {"mscale_all_dim", 3}}).attention_factor, 0.75);
  EXPECT_DOUBLE_EQ(yarn({{"mscale", 2}, {"mscale_all_dim", 3}}).attention_factor,
                   (0.2 * std::log(4) + 1) / (0.3 * std::log(4) + 1));
  EXPECT_DOUBLE_EQ(yarn({{"mscale", 2}}).attention_factor, 0.1 * std::log(4) + 1);
  EXPECT_DOUBLE_EQ(yarn({{"mscale", 1.0}, {"mscale_all_dim", 0}}).attention_factor, 0.1 * std::log(4) + 1);
  EXPECT_EQ(yarn({{"factor", 0.5}}).attention_factor, 1);
  EXPECT_EQ(yarn({{"original_max_position_embeddings", 2048}}).original_context_length, 2048);
  EXPECT_FALSE(yarn({{"truncate", false}}).truncate);
  EXPECT_EQ(yarn({{"beta_fast", 16}, {"beta_slow", 2}}).beta_fast, 16);
}

TEST(ParseModelConfig, StretchesTheContextByTheScaling) {
  const auto context = [](const json& rope) {
    return Parse(With(Llama3Json(), {{"rope_scaling", rope}})).context_length;
  };
  EXPECT_EQ(context({{"rope_type", "default"}}), 8192);
  EXPECT_EQ(context({{"rope_type", "linear"}, {"factor", 4}}), 32768);
  EXPECT_EQ(context({{"rope_type", "dynamic"}, {"factor", 2.5}}), 20480);
  EXPECT_EQ(context({{"rope_type", "yarn"}, {"factor", 4}}), 32768);
  EXPECT_EQ(context({{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 2048}}),
            8192);
  EXPECT_EQ(context({{"rope_type", "llama3"},
                     {"factor", 8},
                     {"low_freq_factor", 1},
                     {"high_freq_factor", 4},
                     {"original_max_position_embeddings", 1024}}),
            8192);
  EXPECT_THAT(Error({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 1e9}}}},
                    absl::StatusCode::kInvalidArgument),
              HasSubstr("impossibly long"));
}

TEST(ParseModelConfig, NamesTheRopeKeyAtFault) {
  const auto error = [](const json& rope) {
    return Error({{"rope_scaling", rope}}, absl::StatusCode::kInvalidArgument);
  };
  EXPECT_THAT(error(3), HasSubstr("'rope_scaling' must be an object"));
  for (const char* type : {"linear", "dynamic", "yarn", "llama3"}) {
    EXPECT_THAT(error({{"rope_type", type}}), HasSubstr("'factor' is missing"));
    EXPECT_THAT(error({{"rope_type", type}, {"factor", -1}}),
                HasSubstr("'factor' must be a positive number"));
  }
  EXPECT_THAT(error({{"rope_type", "llama3"}, {"factor", 8}}), HasSubstr("'low_freq_factor' is missing"));
  EXPECT_THAT(error({{"rope_type", "yarn"}, {"factor", 8}, {"truncate", "no"}}), HasSubstr("'truncate'"));
  EXPECT_THAT(Error({{"head_dim", 2}, {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2}}}},
                    absl::StatusCode::kInvalidArgument),
              HasSubstr("'head_dim' must be larger than 2"));
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
  EXPECT_EQ(Parse(nemo).layers[0].window, 0);
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
  json unsaid = mistral;
  unsaid.erase("sliding_window");
  EXPECT_THAT(windows(unsaid), testing::ElementsAre(4096, 4096, 4096));
  EXPECT_THAT(windows(With(unsaid, {{"max_position_embeddings", 4096}})), testing::Each(0));
  // Longer by its scaling, so that the window acts.
  EXPECT_THAT(windows(With(unsaid, {{"max_position_embeddings", 4096},
                                    {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2}}}})),
              testing::Each(4096));
  EXPECT_THAT(windows(With(mistral, {{"use_sliding_window", false}})), testing::Each(4096));
  const json qwen = With(mistral, {{"architectures", {"Qwen2ForCausalLM"}}, {"max_window_layers", 2}});
  EXPECT_THAT(windows(qwen), testing::Each(0));
  EXPECT_THAT(windows(With(qwen, {{"use_sliding_window", true}})), testing::ElementsAre(0, 0, 4096));
  EXPECT_THAT(windows(With(qwen, {{"use_sliding_window", true}, {"max_window_layers", 28}})),
              testing::Each(0));
  json qwen_unsaid = With(qwen, {{"use_sliding_window", true}, {"num_hidden_layers", 30}});
  qwen_unsaid.erase("sliding_window");
  qwen_unsaid.erase("max_window_layers");
  const std::vector<int> default_windows = windows(qwen_unsaid);
  EXPECT_EQ(default_windows[27], 0);
  EXPECT_EQ(default_windows[28], 4096);
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
  EXPECT_THAT(Error({{"rope_scaling", {{"rope_type", "longrope"}, {"factor", 2.0}}}}),
              AllOf(HasSubstr("rope type \"longrope\" is not supported"),
                    HasSubstr("\"default\", \"linear\", \"dynamic\", \"yarn\", \"llama3\"")));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    EXPECT_THAT(Error({{key, {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}}}),
                HasSubstr("partial_rotary_factor 0.5"));
    EXPECT_THAT(Error({{key, {{"full_attention", {{"rope_type", "default"}}}}}}),
                HasSubstr("for each kind of layer (\"full_attention\")"));
  }
  EXPECT_THAT(Error({{"partial_rotary_factor", 0.5}}), HasSubstr("partial_rotary_factor 0.5"));
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
  for (const char* storage : {"uint8", "bfloat16"}) {
    const json nf4 = With(fp4, {{"bnb_4bit_quant_type", "nf4"}, {"bnb_4bit_quant_storage", storage}});
    Parse(With(Llama3Json(), {{"quantization_config", nf4}}));
  }
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

TEST(UseGenerationStopTokens, TakesThemInsteadOfTheConfigs) {
  ModelConfig config = Parse(Llama3Json());
  ASSERT_THAT(config.stop_token_ids, ElementsAre(128009));
  for (const char* none : {R"({"eos_token_id": null})", R"({"eos_token_id": []})", "{}"}) {
    ASSERT_THAT(UseGenerationStopTokens(none, "g.json", config), IsOk());
    EXPECT_THAT(config.stop_token_ids, ElementsAre(128009)) << none;
  }
  ASSERT_THAT(UseGenerationStopTokens(R"({"eos_token_id": [128001, 128008, 128001]})", "g.json", config),
              IsOk());
  EXPECT_THAT(config.stop_token_ids, ElementsAre(128001, 128008));
  ASSERT_THAT(UseGenerationStopTokens(R"({"eos_token_id": 5})", "g.json", config), IsOk());
  EXPECT_THAT(config.stop_token_ids, ElementsAre(5));
}

TEST(UseGenerationStopTokens, NamesWhatIsWrong) {
  ModelConfig config = Parse(Llama3Json());
  auto error = [&](const std::string& text) {
    return std::string(UseGenerationStopTokens(text, "g.json", config).message());
  };
  EXPECT_THAT(error("["), HasSubstr("g.json: not valid JSON at line 1, column 2"));
  EXPECT_THAT(error(R"({"eos_token_id": 128256})"), HasSubstr("'eos_token_id' must hold token ids"));
}

TEST(ParseModelConfig, ShowsNoMoreThanALineOfWhatIsWrong) {
  const json long_list = json(std::vector<int>(1'000'000, 7));
  for (const char* key : {"hidden_size", "rms_norm_eps", "tie_word_embeddings", "hidden_act"}) {
    const auto parsed = ParseModelConfig(With(Llama3Json(), {{key, json(long_list)}}).dump(), "config.json");
    EXPECT_FALSE(parsed.ok()) << key;
    EXPECT_LT(parsed.status().message().size(), 400u) << key;
  }
}

// As transformers 5 has it where config.json says nothing.
TEST(ParseModelConfig, TheContextThatIsNotSaidIsTheFamilys) {
  json unsaid = Llama3Json();
  unsaid.erase("max_position_embeddings");
  const std::pair<const char*, int> cases[] = {{"LlamaForCausalLM", 2048},
                                               {"MistralForCausalLM", 131072},
                                               {"Qwen2ForCausalLM", 32768},
                                               {"Qwen3ForCausalLM", 32768}};
  for (const auto& [architecture, length] : cases) {
    const auto config =
        ParseModelConfig(With(unsaid, {{"architectures", {architecture}}}).dump(), "config.json");
    ASSERT_THAT(config, IsOk()) << architecture;
    EXPECT_EQ(config->context_length, length) << architecture;
  }
}

}  // namespace
}  // namespace mechinterp::engine
