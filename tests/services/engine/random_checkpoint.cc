#include "tests/services/engine/random_checkpoint.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/engine/checkpoint/safetensors_writer.h"

namespace mechinterp::engine {

RandomCheckpoint::RandomCheckpoint(unsigned seed, const RandomFamily& family) {
  std::mt19937 random(seed);
  auto pick = [&](std::initializer_list<int> choices) {
    return *(choices.begin() + random() % choices.size());
  };
  const int kv_heads = pick({1, 2, 3}), heads = kv_heads * pick({1, 2, 4}), head_size = pick({4, 6, 10, 18});
  const int d = pick({12, 23, 40}), f = pick({17, 33, 64}), layers = pick({1, 2, 3}),
            vocabulary = pick({31, 50});
  const bool tied = pick({0, 1}) == 1;
  directory_ = (std::filesystem::temp_directory_path() /
                absl::StrCat("abstract-random-", ::getpid(), "-", seed, family.architecture, family.biases,
                             family.window, "-", std::hash<std::string>{}(family.rope_scaling)))
                   .string();
  std::filesystem::create_directories(directory_);
  nlohmann::json config = {{"architectures", {family.architecture}},
                           {"hidden_act", "silu"},
                           {"vocab_size", vocabulary},
                           {"hidden_size", d},
                           {"intermediate_size", f},
                           {"num_hidden_layers", layers},
                           {"num_attention_heads", heads},
                           {"num_key_value_heads", kv_heads},
                           {"head_dim", head_size},
                           {"rms_norm_eps", 1e-5},
                           {"rope_theta", 1000.0},
                           {"rope_scaling", nlohmann::json::parse(family.rope_scaling)},
                           {"max_position_embeddings", family.max_positions},
                           {"tie_word_embeddings", tied},
                           {"eos_token_id", 0}};
  if (family.biases) config["attention_bias"] = config["mlp_bias"] = true;
  if (family.window > 0) {
    config["sliding_window"] = family.window;
    config["use_sliding_window"] = true;
    config["max_window_layers"] = 1;
  }
  std::ofstream(directory_ + "/config.json") << config;

  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes = {
      {"model.embed_tokens.weight", {vocabulary, d}}, {"model.norm.weight", {d}}};
  if (!tied) shapes.push_back({"lm_head.weight", {vocabulary, d}});
  for (int layer = 0; layer < layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    shapes.insert(shapes.end(), {{prefix + "input_layernorm.weight", {d}},
                                 {prefix + "self_attn.q_proj.weight", {heads * head_size, d}},
                                 {prefix + "self_attn.k_proj.weight", {kv_heads * head_size, d}},
                                 {prefix + "self_attn.v_proj.weight", {kv_heads * head_size, d}},
                                 {prefix + "self_attn.o_proj.weight", {d, heads * head_size}},
                                 {prefix + "post_attention_layernorm.weight", {d}},
                                 {prefix + "mlp.gate_proj.weight", {f, d}},
                                 {prefix + "mlp.up_proj.weight", {f, d}},
                                 {prefix + "mlp.down_proj.weight", {d, f}}});
    if (family.biases || family.architecture == "Qwen2ForCausalLM") {
      shapes.insert(shapes.end(), {{prefix + "self_attn.q_proj.bias", {heads * head_size}},
                                   {prefix + "self_attn.k_proj.bias", {kv_heads * head_size}},
                                   {prefix + "self_attn.v_proj.bias", {kv_heads * head_size}}});
    }
    if (family.biases) {
      shapes.insert(shapes.end(), {{prefix + "self_attn.o_proj.bias", {d}},
                                   {prefix + "mlp.gate_proj.bias", {f}},
                                   {prefix + "mlp.up_proj.bias", {f}},
                                   {prefix + "mlp.down_proj.bias", {d}}});
    }
    if (family.architecture == "Qwen3ForCausalLM") {
      shapes.insert(shapes.end(), {{prefix + "self_attn.q_norm.weight", {head_size}},
                                   {prefix + "self_attn.k_norm.weight", {head_size}}});
    }
  }
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> values;
  std::vector<TensorToWrite> tensors;
  values.reserve(shapes.size());
  for (const auto& [name, shape] : shapes) {
    values.emplace_back(ElementCount(shape));
    const float scale = shape.size() == 1 ? 0.2f : 1.0f / std::sqrt(static_cast<float>(shape.back()));
    const bool is_gain = shape.size() == 1 && !absl::EndsWith(name, ".bias");
    for (float& v : values.back()) v = normal(random) * scale + (is_gain ? 1.0f : 0.0f);
    tensors.push_back({name, NumberFormat::kFloat32, shape, values.back()});
  }
  if (!WriteSafetensors(directory_ + "/model.safetensors", tensors).ok()) std::abort();
}

RandomCheckpoint::~RandomCheckpoint() { std::filesystem::remove_all(directory_); }

}  // namespace mechinterp::engine
