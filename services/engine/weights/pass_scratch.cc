#include "services/engine/weights/pass_scratch.h"

#include <algorithm>

namespace mechinterp::engine {

int64_t ScratchBytes(const ModelConfig& config, int64_t rows) {
  const int64_t residuals = 4 * int64_t{config.d_model};  // stream, normalized, block's output, head's rows
  const int64_t attention = 2 * int64_t{config.query_width()} + 2 * int64_t{config.key_value_width()};
  const int64_t mlp = 3 * int64_t{config.d_ff};
  const int64_t row = residuals + attention + mlp + 1;
  constexpr int64_t kFloatBytes = sizeof(float);
  return rows * row * kFloatBytes + std::min(rows, kHeadRowsPerBlock) * config.vocabulary_size * kFloatBytes;
}

}  // namespace mechinterp::engine
