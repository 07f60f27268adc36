#include "services/engine/forward/norm_scales.h"

#include <cmath>

namespace mechinterp::engine {

NormScales::NormScales(const ModelConfig& config, const Batch& batch, Arithmetic& arithmetic)
    : layer_count_(config.layer_count()), batch_(batch), math_(arithmetic) {
  math_.Allocate(Slot::kNormScales, 2 * layer_count_ * batch.row_count(), 1);
}

// A norm reads what has entered by its block's beginning, or by its attention's end.
int64_t NormScales::RowsAt(const HookSite& norm) const {
  return batch_.RowsAt(
      {norm.point == HookPoint::kLn1Scale ? HookPoint::kResidPre : HookPoint::kZ, norm.layer});
}

Rows NormScales::Of(const HookSite& norm, int64_t first, int64_t count) const {
  const int index = 2 * norm.layer + (norm.point == HookPoint::kLn1Scale ? 0 : 1);
  return {Slot::kNormScales, index * batch_.row_count() + first, count, 1};
}

void NormScales::Keep(const HookSite& norm) {
  const int64_t count = RowsAt(norm);
  math_.Copy({Slot::kScale, 0, count, 1}, Of(norm, 0, count));
}

std::optional<NormScales::Origin> NormScales::FirstNotFinite(int64_t first, int64_t count) const {
  for (int layer = 0; layer < layer_count_; ++layer) {
    for (const HookPoint point : {HookPoint::kLn1Scale, HookPoint::kLn2Scale}) {
      const HookSite norm{point, layer};
      if (first >= RowsAt(norm)) continue;
      int64_t good = 0;
      math_.WithHostRows(Of(norm, first, count), [&](const float* scales) {
        while (good < count && std::isfinite(scales[good])) ++good;
        return false;
      });
      if (good < count) return Origin{norm, first + good};
    }
  }
  return std::nullopt;
}

}  // namespace mechinterp::engine
