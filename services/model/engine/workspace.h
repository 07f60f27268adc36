#ifndef SERVICES_MODEL_ENGINE_WORKSPACE_H_
#define SERVICES_MODEL_ENGINE_WORKSPACE_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <array>
#include <cstdint>

namespace mechinterp::engine {

// Scratch of forward passes: one buffer for each intermediate result, kept from
// layer to layer and pass to pass, grown when a pass has more rows. So passes neither
// allocate nor touch new pages. Used by one pass at a time.
class Workspace {
 public:
  enum Slot {
    kResidual,
    kScale,
    kNormalized,
    kQuery,
    kKey,
    kValue,
    kZ,
    kGate,
    kUp,
    kNeurons,
    kBlockOut,  // of attention, then of the MLP
    kHeadRows,
    kLogits,
    kSlotCount,
  };

  // [n, width], fp32, contiguous, of undefined contents. Valid until the slot is
  // asked for again.
  at::Tensor Rows(Slot slot, int64_t n, int64_t width) {
    at::Tensor& buffer = buffers_[slot];
    if (!buffer.defined() || buffer.numel() < n * width) buffer = at::empty({n * width}, at::kFloat);
    return buffer.narrow(0, 0, n * width).view({n, width});
  }

  int64_t bytes() const {
    int64_t values = 0;
    for (const at::Tensor& buffer : buffers_) values += buffer.defined() ? buffer.numel() : 0;
    return values * static_cast<int64_t>(sizeof(float));
  }

 private:
  std::array<at::Tensor, kSlotCount> buffers_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_WORKSPACE_H_
