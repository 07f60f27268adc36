#include "services/engine/weights/pass_scratch.h"

#include <algorithm>

namespace mechinterp::engine {

int64_t ScratchBytes(const ModelConfig& config, int64_t rows) {
  const int64_t residuals = 4 * int64_t{config.d_model};  // stream, normalized, block's output, head's rows
  const int64_t attention = 2 * int64_t{config.query_width()} + 2 * int64_t{config.key_value_width()};
  const int64_t mlp = 3 * int64_t{config.d_ff};
  const bool has_head_norms = std::any_of(config.layers.begin(), config.layers.end(),
                                          [](const LayerConfig& l) { return l.query_key_norm; });
  const int64_t scales = has_head_norms ? config.head_count : 1;
  const int64_t row = residuals + attention + mlp + scales;
  constexpr int64_t kFloatBytes = sizeof(float);
  return rows * row * kFloatBytes + std::min(rows, kHeadRowsPerBlock) * config.vocabulary_size * kFloatBytes;
}

}  // namespace mechinterp::engine
