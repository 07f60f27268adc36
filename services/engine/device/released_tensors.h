#ifndef SERVICES_ENGINE_DEVICE_RELEASED_TENSORS_H_
#define SERVICES_ENGINE_DEVICE_RELEASED_TENSORS_H_

#include <ATen/core/Tensor.h>

#include <vector>

namespace mechinterp::engine {

// Requests let go of their tensors in their own threads, but only one thread may touch
// a device, which giving its memory back does. So they are handed over.

// Takes tensors to be released by the thread that uses the device. From any thread.
void ReleaseLater(std::vector<at::Tensor> tensors);

// Releases them. Only from the thread that uses the device; before each pass.
void ReleaseNow();

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_DEVICE_RELEASED_TENSORS_H_
