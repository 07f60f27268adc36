#ifndef SERVICES_MODEL_ENGINE_WORKSPACE_H_
#define SERVICES_MODEL_ENGINE_WORKSPACE_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <array>
#include <atomic>
#include <cstdint>

namespace mechinterp::engine {

// Scratch of forward passes: one buffer for each intermediate result, kept from
// layer to layer and pass to pass, grown when a pass has more rows. So passes neither
// allocate nor touch new pages. Used by one pass at a time.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { total_bytes_ -= bytes_; }

  // What all workspaces of this process hold; from any thread.
  static int64_t total_bytes() { return total_bytes_; }

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
    if (!buffer.defined() || buffer.numel() < n * width) {
      const int64_t before = buffer.defined() ? buffer.nbytes() : 0;
      buffer = at::empty({n * width}, at::kFloat);
      const int64_t added = static_cast<int64_t>(buffer.nbytes()) - before;
      bytes_ += added;
      total_bytes_ += added;
    }
    return buffer.narrow(0, 0, n * width).view({n, width});
  }

 private:
  inline static std::atomic<int64_t> total_bytes_ = 0;

  std::array<at::Tensor, kSlotCount> buffers_;
  int64_t bytes_ = 0;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_WORKSPACE_H_
