#include "services/engine/checkpoint/model_family.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// Where sliding_window acts.
enum class WindowRule {
  kNowhere,
  kInEveryLayer,
  kInLaterLayers,  // with use_sliding_window, in the layers from max_window_layers on
};

struct Family {
  absl::string_view architecture;
  absl::string_view members;  // for messages
  // What its modeling code has whatever config.json says.
  bool query_key_value_bias = false;
  bool query_key_norm = false;
  // Whether attention_bias and mlp_bias in config.json give it biases.
  bool reads_attention_bias = false;
  bool reads_mlp_bias = false;
  WindowRule window = WindowRule::kNowhere;
};

// As transformers 5.12 computes them.
constexpr Family kFamilies[] = {
    {.architecture = "LlamaForCausalLM",
     .members = "Llama 2 to 3.3 and all of that shape",
     .reads_attention_bias = true,
     .reads_mlp_bias = true},
    {.architecture = "MistralForCausalLM",
     .members = "Mistral 7B, Nemo",
     .window = WindowRule::kInEveryLayer},
    {.architecture = "Qwen2ForCausalLM",
     .members = "Qwen2 and 2.5, dense",
     .query_key_value_bias = true,
     .window = WindowRule::kInLaterLayers},
    {.architecture = "Qwen3ForCausalLM",
     .members = "Qwen3, dense",
     .query_key_norm = true,
     .reads_attention_bias = true,
     .window = WindowRule::kInLaterLayers},
};

absl::StatusOr<Family> FamilyOf(const ConfigReader& config) {
  if (!config.Has("architectures") || !config["architectures"].is_array() ||
      config["architectures"].empty() || !config["architectures"][0].is_string()) {
    return config.Bad("architectures", "is missing");
  }
  const std::string architecture = config["architectures"][0].get<std::string>();
  for (const Family& family : kFamilies) {
    if (family.architecture == architecture) return family;
  }
  return absl::UnimplementedError(absl::StrCat(config.path(), ": architecture ", architecture,
                                               " is not supported; supported: ", SupportedFamilies()));
}

bool IsTrue(const ConfigReader& config, const char* key) { return config.Has(key) && config[key] == true; }

// The window that acts in each layer, 0 for none. One that is no shorter than the context
// never does.
absl::StatusOr<std::vector<int>> ReadWindows(const ConfigReader& config, const Family& family, int layers) {
  std::vector<int> windows(layers, 0);
  if (!config.Has("sliding_window") ||
      (config.Has("use_sliding_window") && config["use_sliding_window"] == false) ||
      (family.window == WindowRule::kInLaterLayers && !IsTrue(config, "use_sliding_window"))) {
    return windows;
  }
  ABSTRACT_ASSIGN_OR_RETURN(const int window, config.Size("sliding_window"));
  ABSTRACT_ASSIGN_OR_RETURN(const int context, config.Size("max_position_embeddings", 2048));
  if (window >= context) return windows;
  if (family.window == WindowRule::kNowhere) {
    return config.NotSupported(
        absl::StrCat("a sliding window (sliding_window ", window, ") for ", family.architecture));
  }
  int first = 0;
  if (family.window == WindowRule::kInLaterLayers && config.Has("max_window_layers") &&
      config["max_window_layers"] != 0) {
    ABSTRACT_ASSIGN_OR_RETURN(first, config.Size("max_window_layers"));
  }
  for (int layer = first; layer < layers; ++layer) windows[layer] = window;
  return windows;
}

// layer_types, where it stands, says which layers the window acts in.
absl::Status ReadLayerTypes(const ConfigReader& config, const Family& family, std::vector<int>& windows) {
  if (!config.Has("layer_types")) return absl::OkStatus();
  const json& types = config["layer_types"];
  const bool are_texts = types.is_array() &&
                         std::all_of(types.begin(), types.end(), [](const json& t) { return t.is_string(); });
  if (!are_texts || types.size() != windows.size()) {
    return config.Bad("layer_types",
                      absl::StrCat("must name the type of each of ", windows.size(), " layers"));
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == "full_attention") {
      windows[i] = 0;
    } else if (types[i] != "sliding_attention" || family.window == WindowRule::kNowhere) {
      return config.NotSupported(absl::StrCat("layer type ", types[i].get<std::string>()));
    } else if (windows[i] == 0) {
      ABSTRACT_ASSIGN_OR_RETURN(windows[i], config.Size("sliding_window"));
    }
  }
  return absl::OkStatus();
}

// Biases that the family's code would not read must not be asked for.
absl::Status CheckBiases(const ConfigReader& config, const Family& family) {
  if (!family.reads_attention_bias && IsTrue(config, "attention_bias")) {
    return config.NotSupported(absl::StrCat("attention_bias true for ", family.architecture));
  }
  if (!family.reads_mlp_bias && IsTrue(config, "mlp_bias")) {
    return config.NotSupported(absl::StrCat("mlp_bias true for ", family.architecture));
  }
  return absl::OkStatus();
}

}  // namespace

std::string SupportedFamilies() {
  std::string names;
  for (const Family& family : kFamilies) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", family.architecture, " (", family.members, ")");
  }
  return names;
}

absl::StatusOr<std::vector<LayerConfig>> ReadLayers(const ConfigReader& config) {
  ABSTRACT_ASSIGN_OR_RETURN(const Family family, FamilyOf(config));
  ABSTRACT_ASSIGN_OR_RETURN(const int count, config.Size("num_hidden_layers"));
  if (count > kMaxLayers) {
    return config.Bad("num_hidden_layers", absl::StrCat("must be at most ", kMaxLayers, ", is ", count));
  }
  ABSTRACT_RETURN_IF_ERROR(CheckBiases(config, family));
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<int> windows, ReadWindows(config, family, count));
  ABSTRACT_RETURN_IF_ERROR(ReadLayerTypes(config, family, windows));
  const bool attention_bias = IsTrue(config, "attention_bias");
  std::vector<LayerConfig> layers(count);
  for (int i = 0; i < count; ++i) {
    layers[i] = {.query_key_value_bias = family.query_key_value_bias || attention_bias,
                 .attention_output_bias = attention_bias,
                 .mlp_bias = IsTrue(config, "mlp_bias"),
                 .query_key_norm = family.query_key_norm,
                 .window = windows[i]};
  }
  return layers;
}

}  // namespace mechinterp::engine
