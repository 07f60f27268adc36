#include "services/engine/weights/pass_scratch.h"

#include <algorithm>

#include "services/engine/kernels/parallel.h"

namespace mechinterp::engine {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

}  // namespace

int64_t ScratchBytes(const ModelConfig& config, int64_t rows) {
  const int64_t residuals = 4 * int64_t{config.d_model};  // stream, normalized, block's output, head's rows
  const int64_t attention = 2 * int64_t{config.query_width()} + 2 * int64_t{config.key_value_width()};
  const int64_t mlp = 3 * int64_t{config.d_ff};
  const int64_t operands = std::max({config.d_model, config.d_ff, config.query_width()});
  const bool has_head_norms = std::any_of(config.layers.begin(), config.layers.end(),
                                          [](const LayerConfig& layer) { return layer.query_key_norm; });
  const int64_t scales = (has_head_norms ? config.head_count : 1) + 2 * config.layer_count();
  const int64_t row = residuals + attention + mlp + operands + scales;
  const int64_t logits = std::min(rows, kHeadRowsPerBlock) * config.vocabulary_size;
  return (rows * row + logits) * kFloatBytes + PassBytes(config, rows, config.context_length);
}

int64_t PassBytes(const ModelConfig& config, int64_t rows, int64_t keys) {
  const int64_t angles = rows * config.head_size;
  const int64_t group = config.head_count / std::max(1, config.key_value_head_count);
  return (angles + kernels::ThreadCount() * group * keys) * kFloatBytes;
}

int64_t GradientScratchBytes(const ModelConfig& config, int64_t rows) {
  // The stream's, a block's output's and input's, the head's rows'; z's, q's, k's, v's; three of neurons.
  const int64_t row = 4 * int64_t{config.d_model} + 2 * int64_t{config.query_width()} +
                      2 * int64_t{config.key_value_width()} + 3 * int64_t{config.d_ff} + 2;
  return (rows * row + 2 * int64_t{config.vocabulary_size}) * kFloatBytes;
}

}  // namespace mechinterp::engine
