#include "services/engine/checkpoint/supported_config.h"

#include <string>

#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// A value's text for messages: a string without its quotes.
std::string Plain(const json& value) {
  const std::string text = Excerpt(value);
  return value.is_string() ? text.substr(1, text.size() - 2) : text;
}

absl::Status NotSupported(const ConfigReader& config, absl::string_view what, absl::string_view supported) {
  return absl::UnimplementedError(
      absl::StrCat(config.path(), ": ", what, " is not supported; supported: ", supported));
}

absl::Status CheckBlocks(const ConfigReader& config) {
  if (config.Has("hidden_act") && config["hidden_act"] != "silu" && config["hidden_act"] != "swish") {
    return NotSupported(config, absl::StrCat("hidden_act ", Plain(config["hidden_act"])), "silu");
  }
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    if (config.Has(key) && config[key] != 0) {
      return config.NotSupported(absl::StrCat("a mixture of experts (", key, " ", Plain(config[key]), ")"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckQuantization(const ConfigReader& config) {
  constexpr absl::string_view kSupported = "none, or bitsandbytes NF4";
  if (!config.Has("quantization_config")) return absl::OkStatus();
  if (!config["quantization_config"].is_object()) {
    return config.Bad("quantization_config", "must be an object");
  }
  const ConfigReader quantization(config["quantization_config"], config.path());
  auto is = [&](const char* key, const json& value) {
    return quantization.Has(key) && quantization[key] == value;
  };
  if (!quantization.Has("quant_method")) return config.Bad("quantization_config", "has no 'quant_method'");
  if (!is("quant_method", "bitsandbytes")) {
    return NotSupported(config, absl::StrCat("quantization by ", Plain(quantization["quant_method"])),
                        kSupported);
  }
  if (is("load_in_8bit", true)) {
    return NotSupported(config, "quantization by bitsandbytes LLM.int8() (load_in_8bit)", kSupported);
  }
  // FP4 is bitsandbytes' default.
  if (!is("bnb_4bit_quant_type", "nf4")) {
    const std::string type =
        quantization.Has("bnb_4bit_quant_type") ? Plain(quantization["bnb_4bit_quant_type"]) : "fp4";
    return NotSupported(config, absl::StrCat("quantization by bitsandbytes in ", type), kSupported);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSupportedConfig(const ConfigReader& config) {
  ABSTRACT_RETURN_IF_ERROR(CheckBlocks(config));
  return CheckQuantization(config);
}

}  // namespace mechinterp::engine
