#include "data/make_checkpoint/shape.h"

#include <algorithm>
#include <map>
#include <optional>
#include <variant>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"

namespace mechinterp::make_checkpoint {
namespace {

using engine::Llama3Rope;
using engine::ModelConfig;
using engine::NumberFormat;
using nlohmann::json;

constexpr engine::TokenId kBeginOfText = 128000, kEndOfText = 128001, kEndOfMessage = 128008,
                          kEndOfTurn = 128009;

// What all of Llama 3 share.
ModelConfig Llama3() {
  ModelConfig shape;
  shape.architecture = "LlamaForCausalLM";
  shape.key_value_head_count = 8;
  shape.head_size = 128;
  shape.vocabulary_size = 128256;
  shape.context_length = 8192;
  shape.rope_theta = 500000;
  shape.begin_token_id = kBeginOfText;
  shape.stop_token_ids = {kEndOfText, kEndOfTurn};
  return shape;
}

ModelConfig Llama3_8B() {
  ModelConfig shape = Llama3();
  shape.layers.resize(32);
  shape.head_count = 32;
  shape.d_model = 4096;
  shape.d_ff = 14336;
  return shape;
}

// From 3.1 on: a context of 128 Ki, and the model may end a message for a tool.
ModelConfig WithLongContext(ModelConfig shape, double factor) {
  shape.context_length = 131072;
  shape.rope_scaling = Llama3Rope{
      .factor = factor, .low_freq_factor = 1, .high_freq_factor = 4, .original_context_length = 8192};
  shape.stop_token_ids = {kEndOfText, kEndOfMessage, kEndOfTurn};
  return shape;
}

ModelConfig Llama32_3B() {
  ModelConfig shape = WithLongContext(Llama3(), 32);
  shape.layers.resize(28);
  shape.head_count = 24;
  shape.d_model = 3072;
  shape.d_ff = 8192;
  shape.tied_embeddings = true;
  return shape;
}

ModelConfig Llama32_1B() {
  ModelConfig shape = WithLongContext(Llama3(), 32);
  shape.layers.resize(16);
  shape.head_count = 32;
  shape.head_size = 64;
  shape.d_model = 2048;
  shape.d_ff = 8192;
  shape.tied_embeddings = true;
  return shape;
}

ModelConfig Qwen25_05B() {
  ModelConfig shape;
  shape.architecture = "Qwen2ForCausalLM";
  shape.layers.resize(24, {.query_key_value_bias = true});
  shape.head_count = 14;
  shape.key_value_head_count = 2;
  shape.head_size = 64;
  shape.d_model = 896;
  shape.d_ff = 4864;
  shape.vocabulary_size = 151936;
  shape.context_length = 32768;
  shape.rms_norm_epsilon = 1e-6;
  shape.rope_theta = 1000000;
  shape.tied_embeddings = true;
  shape.begin_token_id = 151643;
  shape.stop_token_ids = {151645, 151643};
  return shape;
}

ModelConfig Qwen3_06B() {
  ModelConfig shape = Qwen25_05B();
  shape.architecture = "Qwen3ForCausalLM";
  shape.layers.assign(28, {.query_key_norm = true});
  shape.head_count = 16;
  shape.key_value_head_count = 8;
  shape.head_size = 128;
  shape.d_model = 1024;
  shape.d_ff = 3072;
  shape.context_length = 40960;
  return shape;
}

ModelConfig Tiny() {
  ModelConfig shape = Llama3();
  shape.layers.resize(2);
  shape.head_count = 4;
  shape.key_value_head_count = 2;
  shape.head_size = 16;
  shape.d_model = 64;
  shape.d_ff = 176;
  shape.vocabulary_size = 512;
  shape.context_length = 512;
  shape.begin_token_id = 510;
  shape.stop_token_ids = {511};
  return shape;
}

const std::map<std::string, ModelConfig>& Presets() {
  static const auto& presets =
      *new std::map<std::string, ModelConfig>{{"llama3-8b", Llama3_8B()},
                                              {"llama3.1-8b", WithLongContext(Llama3_8B(), 8)},
                                              {"llama3.2-3b", Llama32_3B()},
                                              {"llama3.2-1b", Llama32_1B()},
                                              {"qwen2.5-0.5b", Qwen25_05B()},
                                              {"qwen3-0.6b", Qwen3_06B()},
                                              {"tiny", Tiny()}};
  return presets;
}

// "qwen2" of "Qwen2ForCausalLM".
std::string ModelType(const std::string& architecture) {
  return absl::AsciiStrToLower(architecture.substr(0, architecture.find("ForCausalLM")));
}

// Of the presets' kind; null for others, which they have not.
json RopeScalingJson(const std::optional<engine::RopeScaling>& scaling) {
  const auto* rope = scaling ? std::get_if<Llama3Rope>(&*scaling) : nullptr;
  if (rope == nullptr) return nullptr;
  return {{"rope_type", "llama3"},
          {"factor", rope->factor},
          {"low_freq_factor", rope->low_freq_factor},
          {"high_freq_factor", rope->high_freq_factor},
          {"original_max_position_embeddings", rope->original_context_length}};
}

void AddTokenIds(const ModelConfig& shape, json& object) {
  if (shape.begin_token_id) object["bos_token_id"] = *shape.begin_token_id;
  if (!shape.stop_token_ids.empty()) object["eos_token_id"] = shape.stop_token_ids;
}

json ConfigJson(const ModelConfig& shape, NumberFormat dtype) {
  const engine::LayerConfig& layer = shape.layers.front();
  json config = {{"architectures", {shape.architecture}},
                 {"attention_bias", layer.attention_output_bias},
                 {"attention_dropout", 0.0},
                 {"head_dim", shape.head_size},
                 {"hidden_act", "silu"},
                 {"hidden_size", shape.d_model},
                 {"initializer_range", 0.02},
                 {"intermediate_size", shape.d_ff},
                 {"max_position_embeddings", shape.context_length},
                 {"mlp_bias", layer.mlp_bias},
                 {"model_type", ModelType(shape.architecture)},
                 {"num_attention_heads", shape.head_count},
                 {"num_hidden_layers", shape.layer_count()},
                 {"num_key_value_heads", shape.key_value_head_count},
                 {"pretraining_tp", 1},
                 {"rms_norm_eps", shape.rms_norm_epsilon},
                 {"rope_scaling", RopeScalingJson(shape.rope_scaling)},
                 {"rope_theta", shape.rope_theta},
                 {"tie_word_embeddings", shape.tied_embeddings},
                 {"torch_dtype", std::string(engine::InfoOf(dtype).name)},
                 {"use_cache", true},
                 {"vocab_size", shape.vocabulary_size}};
  AddTokenIds(shape, config);
  return config;
}

}  // namespace

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const auto& [name, shape] : Presets()) names.push_back(name);
  return names;
}

absl::StatusOr<ModelConfig> PresetShape(const std::string& name) {
  const auto found = Presets().find(name);
  if (found != Presets().end()) return found->second;
  return absl::NotFoundError(
      absl::StrCat("no shape '", name, "'; there are ", absl::StrJoin(PresetNames(), ", ")));
}

void DropTokensPastTheVocabulary(ModelConfig& shape) {
  const auto is_past = [&](engine::TokenId id) { return id >= shape.vocabulary_size; };
  if (shape.begin_token_id && is_past(*shape.begin_token_id)) shape.begin_token_id.reset();
  std::erase_if(shape.stop_token_ids, is_past);
}

absl::StatusOr<engine::CheckpointFiles> ConfigFiles(const ModelConfig& shape, NumberFormat dtype) {
  const std::string config = ConfigJson(shape, dtype).dump(2) + "\n";
  ABSTRACT_RETURN_IF_ERROR(engine::ParseModelConfig(config, "config.json").status());
  json generation = {{"do_sample", true}, {"temperature", 0.6}, {"top_p", 0.9}};
  AddTokenIds(shape, generation);
  return engine::CheckpointFiles{{"config.json", config},
                                 {"generation_config.json", generation.dump(2) + "\n"}};
}

}  // namespace mechinterp::make_checkpoint
