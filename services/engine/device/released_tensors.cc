#include "services/engine/device/released_tensors.h"

#include <iterator>
#include <mutex>
#include <utility>

namespace mechinterp::engine {
namespace {

std::mutex mutex;

// Never destroyed: what is left at the end of the process goes with it, since
// libtorch's devices may be gone before.
std::vector<at::Tensor>& Waiting() {
  static auto& waiting = *new std::vector<at::Tensor>();
  return waiting;
}

}  // namespace

void ReleaseLater(std::vector<at::Tensor> tensors) {
  if (tensors.empty()) return;
  const std::lock_guard lock(mutex);
  std::move(tensors.begin(), tensors.end(), std::back_inserter(Waiting()));
}

void ReleaseNow() {
  std::vector<at::Tensor> tensors;
  const std::lock_guard lock(mutex);
  tensors.swap(Waiting());
}

}  // namespace mechinterp::engine
