// config.json; after a zero byte generation_config.json.

#include <cmath>
#include <string>
#include <variant>

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp::engine {
namespace {

using fuzz::Require;

void CheckTokens(const ModelConfig& config) {
  const auto is_token = [&](TokenId id) { return id >= 0 && id < config.vocabulary_size; };
  for (const TokenId id : config.stop_token_ids) Require(is_token(id), "stop tokens are tokens");
  Require(!config.begin_token_id || is_token(*config.begin_token_id), "begin-of-text is a token");
}

void CheckConfig(const ModelConfig& config) {
  for (const int size :
       {config.layer_count(), config.head_count, config.key_value_head_count, config.head_size,
        config.d_model, config.d_ff, config.vocabulary_size, config.context_length}) {
    Require(size >= 1, "sizes are at least 1");
  }
  Require(config.head_count % config.key_value_head_count == 0, "heads share keys and values evenly");
  Require(config.head_size % 2 == 0, "rotary embeddings turn pairs");
  Require(config.query_width() == int64_t{config.head_count} * config.head_size, "widths do not overflow");
  Require(config.key_value_width() <= config.query_width(), "keys are no wider than queries");
  Require(config.rms_norm_epsilon > 0 && std::isfinite(config.rms_norm_epsilon), "epsilon is positive");
  Require(config.rope_theta > 1 && std::isfinite(config.rope_theta), "theta is above 1");
  for (const LayerConfig& layer : config.layers) Require(layer.window >= 0, "windows are not negative");
  CheckTokens(config);
  for (const TensorInfo& tensor : LayerTensors(config, config.layer_count() - 1)) {
    Require(tensor.count() >= 1, "every tensor has values");
  }
  Require(CountParameters(config) >= 1, "the number of parameters does not overflow");
}

}  // namespace
}  // namespace mechinterp::engine

ABSTRACT_FUZZ_TARGET(model_config) {
  using namespace mechinterp::engine;
  const auto [model, generation] = mechinterp::fuzz::CutAt(input, '\0');
  auto config = ParseModelConfig(std::string(model), "config.json");
  if (!config.ok()) return mechinterp::fuzz::RequireRefusal(config.status(), "config.json");
  CheckConfig(*config);
  const auto status = UseGenerationStopTokens(std::string(generation), "generation_config.json", *config);
  if (!status.ok()) return mechinterp::fuzz::RequireRefusal(status, "generation_config.json");
  CheckTokens(*config);
}
