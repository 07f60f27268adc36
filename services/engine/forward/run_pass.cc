#include "services/engine/forward/run_pass.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <exception>
#include <vector>

#include "services/engine/device/device.h"
#include "services/engine/device/released_tensors.h"
#include "services/engine/forward/aten_arithmetic.h"
#include "services/engine/forward/backward.h"
#include "services/engine/forward/batch.h"
#include "services/engine/forward/circuit_pass.h"
#include "services/engine/forward/cpu_arithmetic.h"
#include "services/engine/forward/forward.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/forward/pass_errors.h"
#include "services/engine/forward/tape.h"

namespace mechinterp::engine {
namespace {

bool RunWithTape(const Model& model, absl::Span<Segment* const> segments, Arithmetic& arithmetic,
                 absl::FunctionRef<bool()> abandoned) {
  const Batch batch(segments);
  const bool keeps_all_layers = std::all_of(segments.begin(), segments.end(), [](const Segment* segment) {
    return segment->gradient->keeps_all_layers;
  });
  Tape tape(model.config(), batch.row_count(), keeps_all_layers, arithmetic);
  ForwardPass forward(model, batch, arithmetic, &tape);
  return forward.Run(abandoned) && BackwardPass(model, batch, forward, tape, arithmetic, abandoned);
}

// False when it was abandoned.
bool RunThere(const Model& model, absl::Span<Segment* const> segments, Arithmetic& arithmetic,
              absl::FunctionRef<bool()> abandoned) {
  std::vector<Segment*> plain, direct, with_tape;
  for (Segment* segment : segments) {
    if (segment->circuit != nullptr) {
      if (!CircuitPass(model, *segment, arithmetic).Run(abandoned)) return false;
      continue;
    }
    const GradientPlan* gradient = segment->gradient.get();
    (gradient == nullptr ? plain : gradient->is_direct() ? direct : with_tape).push_back(segment);
  }
  for (const std::vector<Segment*>* part : {&plain, &direct}) {
    if (part->empty()) continue;
    const Batch batch(*part);
    if (!ForwardPass(model, batch, arithmetic).Run(abandoned)) return false;
    if (part == &direct && !DirectBackwardPass(model, batch, arithmetic, abandoned)) return false;
  }
  return with_tape.empty() || RunWithTape(model, with_tape, arithmetic, abandoned);
}

bool RunOnDevice(const Model& model, absl::Span<Segment* const> segments,
                 absl::FunctionRef<bool()> abandoned) {
  if (!model.device().UsesLibtorch()) {
    thread_local CpuArithmetic arithmetic;
    arithmetic.set_config(&model.config());
    return RunThere(model, segments, arithmetic, abandoned);
  }
  ReleaseNow();
  try {
    bool finished;
    {
      AtenArithmetic arithmetic(model);
      finished = RunThere(model, segments, arithmetic, abandoned);
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
  segment.gradients.clear();
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
    if (RunOnDevice(model, segments, abandoned)) return status;
    status = absl::CancelledError("forward pass: nobody waits for it any more");
  } catch (const std::exception& error) {  // c10::Error and std::bad_alloc
    status = PassError(error);
  }
  for (Segment* segment : segments) Restore(*segment);
  return status;
}

}  // namespace mechinterp::engine
