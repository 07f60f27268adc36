#include "services/engine/forward/rotary_angles.h"

#include <cmath>

namespace mechinterp::engine {

RotaryAngles::RotaryAngles(const Batch& batch, const std::vector<float>& frequencies) {
  const auto half = static_cast<int64_t>(frequencies.size());
  cosines.resize(batch.row_count() * half);
  sines.resize(cosines.size());
  for (const Batch::Item& item : batch.items()) {
    for (int64_t i = 0; i < item.rows; ++i) {
      const auto position = static_cast<float>(item.segment->first_position + i);
      for (int64_t j = 0; j < half; ++j) {
        // Rounded to fp32 as the reference's is.
        const double angle = position * frequencies[j];
        cosines[(item.first_row + i) * half + j] = static_cast<float>(std::cos(angle));
        sines[(item.first_row + i) * half + j] = static_cast<float>(std::sin(angle));
      }
    }
  }
}

}  // namespace mechinterp::engine
