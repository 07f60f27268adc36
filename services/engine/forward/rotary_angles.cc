#include "services/engine/forward/rotary_angles.h"

#include <algorithm>
#include <cmath>

namespace mechinterp::engine {

RotaryAngles::RotaryAngles(const Batch& batch, const RotaryFrequencies& rotary) {
  const int64_t pairs = rotary.pairs();
  cosines.resize(batch.row_count() * pairs);
  sines.resize(cosines.size());
  for (const Batch::Item& item : batch.items()) {
    int length = 0;  // that `frequencies` are of
    std::vector<float> frequencies;
    for (int64_t i = 0; i < item.rows; ++i) {
      const int position = item.segment->first_position + static_cast<int>(i);
      if (const int wanted = std::max(item.segment->PromptLength(), position + 1); wanted != length) {
        length = wanted;
        frequencies = rotary.At(length);
      }
      for (int64_t j = 0; j < pairs; ++j) {
        // Rounded to fp32 as the reference's is.
        const double angle = static_cast<float>(position) * frequencies[j];
        const int64_t at = (item.first_row + i) * pairs + j;
        cosines[at] = static_cast<float>(std::cos(angle)) * rotary.magnitude();
        sines[at] = static_cast<float>(std::sin(angle)) * rotary.magnitude();
      }
    }
  }
}

}  // namespace mechinterp::engine
