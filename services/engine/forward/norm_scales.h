#ifndef SERVICES_ENGINE_FORWARD_NORM_SCALES_H_
#define SERVICES_ENGINE_FORWARD_NORM_SCALES_H_

#include <cstdint>
#include <optional>

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// What the norms within the blocks have divided each row by, kept until a pass ends: a row
// that is not finite has a scale that is not, so where a bad row became one is known without
// looking at any row on the way. For one pass; throws what the arithmetic does.
class NormScales {
 public:
  // Allocates Slot::kNormScales.
  NormScales(const ModelConfig& config, const Batch& batch, Arithmetic& arithmetic);

  // Keeps what Slot::kScale holds for the rows that are at `norm`, ln1.hook_scale or
  // ln2.hook_scale of a layer.
  void Keep(const HookSite& norm);

  // Where rows [first, first + count) of the batch, a sequence's, first had values that were not
  // finite: the norm that read them, and which row. Nothing when no norm of the blocks did.
  struct Origin {
    HookSite norm;
    int64_t row = 0;
  };
  std::optional<Origin> FirstNotFinite(int64_t first, int64_t count) const;

 private:
  int64_t RowsAt(const HookSite& norm) const;
  Rows Of(const HookSite& norm, int64_t first, int64_t count) const;

  const int layer_count_;
  const Batch& batch_;
  Arithmetic& math_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_NORM_SCALES_H_
