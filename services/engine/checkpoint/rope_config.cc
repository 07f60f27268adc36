#include "services/engine/checkpoint/rope_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

constexpr double kDefaultTheta = 10000;
// Of a context, so that positions stay exact as fp32.
constexpr double kMaxContext = 1 << 24;

// The settings of one model.
struct Settings {
  const ConfigReader& config;
  const ConfigReader rope;  // rope_scaling or rope_parameters
  int max_positions;

  // What the model was trained on before it was stretched. The key at the top level is
  // Phi-3's and goes first.
  absl::StatusOr<int> OriginalContext() const {
    constexpr char kKey[] = "original_max_position_embeddings";
    if (config.Has(kKey)) return config.Size(kKey);
    return rope.Size(kKey, max_positions);
  }
};

absl::StatusOr<RopeScaling> ReadLinear(const Settings& settings) {
  LinearRope linear;
  ABSTRACT_ASSIGN_OR_RETURN(linear.factor, settings.rope.Number("factor"));
  return linear;
}

absl::StatusOr<RopeScaling> ReadDynamic(const Settings& settings) {
  DynamicRope dynamic;
  ABSTRACT_ASSIGN_OR_RETURN(dynamic.factor, settings.rope.Number("factor"));
  dynamic.original_context_length = settings.max_positions;
  return dynamic;
}

// YaRN's rule for how much larger queries and keys become.
double Magnitude(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

absl::StatusOr<RopeScaling> ReadYarn(const Settings& settings) {
  const ConfigReader& rope = settings.rope;
  YarnRope yarn;
  ABSTRACT_ASSIGN_OR_RETURN(yarn.factor, rope.Number("factor"));
  ABSTRACT_ASSIGN_OR_RETURN(yarn.original_context_length, settings.OriginalContext());
  ABSTRACT_ASSIGN_OR_RETURN(yarn.beta_fast, rope.Number("beta_fast", yarn.beta_fast));
  ABSTRACT_ASSIGN_OR_RETURN(yarn.beta_slow, rope.Number("beta_slow", yarn.beta_slow));
  ABSTRACT_ASSIGN_OR_RETURN(yarn.truncate, rope.Bool("truncate", true));
  double by_factor = Magnitude(yarn.factor, 1);
  if (rope.Has("mscale") && rope.Has("mscale_all_dim") && rope["mscale"] != 0 &&
      rope["mscale_all_dim"] != 0) {
    ABSTRACT_ASSIGN_OR_RETURN(const double mscale, rope.Number("mscale"));
    ABSTRACT_ASSIGN_OR_RETURN(const double all_dim, rope.Number("mscale_all_dim"));
    by_factor = Magnitude(yarn.factor, mscale) / Magnitude(yarn.factor, all_dim);
  }
  ABSTRACT_ASSIGN_OR_RETURN(yarn.attention_factor, rope.Number("attention_factor", by_factor));
  return yarn;
}

absl::StatusOr<RopeScaling> ReadLlama3(const Settings& settings) {
  const ConfigReader& rope = settings.rope;
  Llama3Rope llama3;
  ABSTRACT_ASSIGN_OR_RETURN(llama3.factor, rope.Number("factor"));
  ABSTRACT_ASSIGN_OR_RETURN(llama3.low_freq_factor, rope.Number("low_freq_factor"));
  ABSTRACT_ASSIGN_OR_RETURN(llama3.high_freq_factor, rope.Number("high_freq_factor"));
  ABSTRACT_ASSIGN_OR_RETURN(llama3.original_context_length, settings.OriginalContext());
  if (llama3.high_freq_factor <= llama3.low_freq_factor) {
    return rope.Bad("high_freq_factor", "must be larger than low_freq_factor");
  }
  return llama3;
}

struct RopeKind {
  absl::string_view type;
  absl::StatusOr<RopeScaling> (*read)(const Settings&);
};
constexpr RopeKind kKinds[] = {
    {"linear", ReadLinear}, {"dynamic", ReadDynamic}, {"yarn", ReadYarn}, {"llama3", ReadLlama3}};

absl::StatusOr<std::optional<RopeScaling>> ReadScaling(const Settings& settings) {
  const ConfigReader& rope = settings.rope;
  const char* key = rope.Has("rope_type") ? "rope_type" : "type";
  if (!rope.Has(key)) {
    if (rope.Has("factor")) return rope.Bad("rope_type", "is missing, though there is a factor");
    return std::nullopt;
  }
  if (rope[key] == "default") return std::nullopt;
  for (const RopeKind& kind : kKinds) {
    if (rope[key] == std::string(kind.type)) return kind.read(settings);
  }
  std::string supported = "\"default\"";
  for (const RopeKind& kind : kKinds) absl::StrAppend(&supported, ", \"", kind.type, "\"");
  return absl::UnimplementedError(absl::StrCat(rope.path(), ": rope type ", Excerpt(rope[key]),
                                               " is not supported; supported: ", supported));
}

// The context that a scaling is made for; 0 where it does not say.
double StretchedContext(const RopeScaling& scaling, int max_positions) {
  if (const auto* linear = std::get_if<LinearRope>(&scaling)) return linear->factor * max_positions;
  if (const auto* dynamic = std::get_if<DynamicRope>(&scaling)) return dynamic->factor * max_positions;
  if (const auto* yarn = std::get_if<YarnRope>(&scaling)) return yarn->factor * yarn->original_context_length;
  return 0;
}

// The object that the settings stand in; an empty one counts as none.
absl::StatusOr<json> SettingsObject(const ConfigReader& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!config.Has(key)) continue;
    if (!config[key].is_object()) return config.Bad(key, "must be an object");
    for (const auto& [name, value] : config[key].items()) {
      if (value.is_object()) {
        return config.NotSupported(
            absl::StrCat("another ", key, " for each kind of layer (", Excerpt(name), ")"));
      }
    }
    if (!config[key].empty()) return json(config[key]);
  }
  return json::object();
}

absl::Status CheckWholeHeads(const ConfigReader& config) {
  constexpr char kKey[] = "partial_rotary_factor";
  if (!config.Has(kKey) || config[kKey] == 1.0) return absl::OkStatus();
  return config.NotSupported(absl::StrCat(kKey, " ", Excerpt(config[kKey]), " (other than 1)"));
}

}  // namespace

absl::Status ReadRope(const ConfigReader& config, int default_context, ModelConfig& model) {
  ABSTRACT_ASSIGN_OR_RETURN(const json object, SettingsObject(config));
  ABSTRACT_ASSIGN_OR_RETURN(const int max_positions, config.Size("max_position_embeddings", default_context));
  const Settings settings{config, ConfigReader(object, config.path()), max_positions};
  ABSTRACT_RETURN_IF_ERROR(CheckWholeHeads(config));
  ABSTRACT_RETURN_IF_ERROR(CheckWholeHeads(settings.rope));
  ABSTRACT_ASSIGN_OR_RETURN(const double outside, config.Number("rope_theta", kDefaultTheta));
  ABSTRACT_ASSIGN_OR_RETURN(model.rope_theta, settings.rope.Number("rope_theta", outside));
  if (model.rope_theta <= 1) return config.Bad("rope_theta", "must be larger than 1");
  ABSTRACT_ASSIGN_OR_RETURN(model.rope_scaling, ReadScaling(settings));
  const double stretched = model.rope_scaling ? StretchedContext(*model.rope_scaling, max_positions) : 0;
  if (stretched > kMaxContext) return config.Bad("factor", "makes an impossibly long context");
  model.context_length = std::max(max_positions, static_cast<int>(stretched));
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
