#include "services/engine/forward/run_pass.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <exception>

#include "services/engine/device/device.h"
#include "services/engine/device/released_tensors.h"
#include "services/engine/forward/aten_arithmetic.h"
#include "services/engine/forward/batch.h"
#include "services/engine/forward/cpu_arithmetic.h"
#include "services/engine/forward/forward.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/forward/pass_errors.h"

namespace mechinterp::engine {
namespace {

// False when it was abandoned.
bool RunOnDevice(const Model& model, const Batch& batch, absl::FunctionRef<bool()> abandoned) {
  if (!model.device().UsesLibtorch()) {
    thread_local CpuArithmetic arithmetic;
    arithmetic.set_config(&model.config());
    return ForwardPass(model, batch, arithmetic, abandoned);
  }
  ReleaseNow();
  try {
    bool finished;
    {
      AtenArithmetic arithmetic(model);
      finished = ForwardPass(model, batch, arithmetic, abandoned);
    }
    TrimDeviceCache(model.device());
    return finished;
  } catch (const std::exception&) {
    TrimDeviceCache(model.device(), /*release_all=*/true);
    throw;
  }
}

// Takes back what a pass that failed has left in a segment.
void Restore(Segment& segment) {
  if (segment.cache != nullptr) segment.cache->Truncate(segment.first_position - segment.shared_length);
  for (auto& [site, recorded] : segment.activations) {
    auto begin =
        std::lower_bound(recorded.positions.begin(), recorded.positions.end(), segment.first_position);
    recorded.positions.erase(begin, recorded.positions.end());
    if (recorded.values.shape.empty()) continue;
    recorded.values.shape[0] = static_cast<int64_t>(recorded.positions.size());
    recorded.values.values.resize(ElementCount(recorded.values.shape));
  }
}

}  // namespace

absl::Status RunPass(const Model& model, absl::Span<Segment* const> segments,
                     absl::FunctionRef<bool()> abandoned) {
  const at::NoGradGuard no_grad;
  absl::Status status;
  try {
    const Batch batch(segments);
    if (RunOnDevice(model, batch, abandoned)) return status;
    status = absl::CancelledError("forward pass: nobody waits for it any more");
  } catch (const std::exception& error) {  // c10::Error and std::bad_alloc
    status = PassError(error);
  }
  for (Segment* segment : segments) Restore(*segment);
  return status;
}

}  // namespace mechinterp::engine
