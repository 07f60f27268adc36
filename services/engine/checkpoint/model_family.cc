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
  int default_context = 2048;  // where max_position_embeddings does not stand
};

// What transformers takes where a window acts and config.json does not say how wide (not
// even "null", which means none), or from which layer on.
constexpr int kDefaultWindow = 4096;
constexpr int kDefaultFirstWindowLayer = 28;

// As transformers 5.12 computes them.
constexpr Family kFamilies[] = {
    {.architecture = "LlamaForCausalLM",
     .members = "Llama 2 to 3.3 and all of that shape",
     .reads_attention_bias = true,
     .reads_mlp_bias = true},
    {.architecture = "MistralForCausalLM",
     .members = "Mistral 7B, Nemo",
     .window = WindowRule::kInEveryLayer,
     .default_context = 131072},
    {.architecture = "Qwen2ForCausalLM",
     .members = "Qwen2 and 2.5, dense",
     .query_key_value_bias = true,
     .window = WindowRule::kInLaterLayers,
     .default_context = 32768},
    {.architecture = "Qwen3ForCausalLM",
     .members = "Qwen3, dense",
     .query_key_norm = true,
     .reads_attention_bias = true,
     .window = WindowRule::kInLaterLayers,
     .default_context = 32768},
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
  return absl::UnimplementedError(absl::StrCat(config.path(), ": architecture ", architecture.substr(0, 100),
                                               " is not supported; supported: ", SupportedFamilies()));
}

// The width of the window; 0: none.
absl::StatusOr<int> ReadWindow(const ConfigReader& config, const Family& family) {
  const bool is_default = family.window != WindowRule::kNowhere && !config.Mentions("sliding_window");
  ABSTRACT_ASSIGN_OR_RETURN(const bool use,
                            config.Bool("use_sliding_window", family.window != WindowRule::kInLaterLayers));
  // A key that Mistral's code does not look at.
  if (!use && family.window != WindowRule::kInEveryLayer) return 0;
  if (is_default) return kDefaultWindow;
  return config.Has("sliding_window") ? config.Size("sliding_window") : 0;
}

// The window that acts in each layer, 0 for none. One that is no shorter than the context
// never does.
absl::StatusOr<std::vector<int>> ReadWindows(const ConfigReader& config, const Family& family, int layers,
                                             int context_length) {
  std::vector<int> windows(layers, 0);
  ABSTRACT_ASSIGN_OR_RETURN(const int window, ReadWindow(config, family));
  if (window == 0 || window >= context_length) return windows;
  if (family.window == WindowRule::kNowhere) {
    return config.NotSupported(
        absl::StrCat("a sliding window (sliding_window ", window, ") for ", family.architecture));
  }
  int first = 0;
  if (family.window == WindowRule::kInLaterLayers &&
      !(config.Has("max_window_layers") && config["max_window_layers"] == 0)) {
    ABSTRACT_ASSIGN_OR_RETURN(first, config.Size("max_window_layers", kDefaultFirstWindowLayer));
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
      return config.NotSupported(absl::StrCat("layer type ", types[i].get<std::string>().substr(0, 100)));
    } else if (windows[i] == 0) {
      ABSTRACT_ASSIGN_OR_RETURN(windows[i], config.Size("sliding_window"));
    }
  }
  return absl::OkStatus();
}

struct Biases {
  bool attention = false;
  bool mlp = false;
};

// Those that config.json asks for, which the family's code must read.
absl::StatusOr<Biases> ReadBiases(const ConfigReader& config, const Family& family) {
  Biases biases;
  ABSTRACT_ASSIGN_OR_RETURN(biases.attention, config.Bool("attention_bias", false));
  ABSTRACT_ASSIGN_OR_RETURN(biases.mlp, config.Bool("mlp_bias", false));
  if (biases.attention && !family.reads_attention_bias) {
    return config.NotSupported(absl::StrCat("attention_bias true for ", family.architecture));
  }
  if (biases.mlp && !family.reads_mlp_bias) {
    return config.NotSupported(absl::StrCat("mlp_bias true for ", family.architecture));
  }
  return biases;
}

}  // namespace

std::string SupportedFamilies() {
  std::string names;
  for (const Family& family : kFamilies) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", family.architecture, " (", family.members, ")");
  }
  return names;
}

absl::StatusOr<int> DefaultContextLength(const ConfigReader& config) {
  ABSTRACT_ASSIGN_OR_RETURN(const Family family, FamilyOf(config));
  return family.default_context;
}

absl::StatusOr<std::vector<LayerConfig>> ReadLayers(const ConfigReader& config, int context_length) {
  ABSTRACT_ASSIGN_OR_RETURN(const Family family, FamilyOf(config));
  ABSTRACT_ASSIGN_OR_RETURN(const int count, config.Size("num_hidden_layers"));
  if (count > kMaxLayers) {
    return config.Bad("num_hidden_layers", absl::StrCat("must be at most ", kMaxLayers, ", is ", count));
  }
  ABSTRACT_ASSIGN_OR_RETURN(const Biases biases, ReadBiases(config, family));
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<int> windows, ReadWindows(config, family, count, context_length));
  ABSTRACT_RETURN_IF_ERROR(ReadLayerTypes(config, family, windows));
  std::vector<LayerConfig> layers(count);
  for (int i = 0; i < count; ++i) {
    layers[i] = {.query_key_value_bias = family.query_key_value_bias || biases.attention,
                 .attention_output_bias = biases.attention,
                 .mlp_bias = biases.mlp,
                 .query_key_norm = family.query_key_norm,
                 .window = windows[i]};
  }
  return layers;
}

}  // namespace mechinterp::engine
