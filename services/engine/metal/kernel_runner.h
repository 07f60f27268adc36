#ifndef SERVICES_ENGINE_METAL_KERNEL_RUNNER_H_
#define SERVICES_ENGINE_METAL_KERNEL_RUNNER_H_

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/engine/metal/kernel_library.h"

namespace mechinterp::engine::metal {

// Runs kernels of the library. On a Mac that is metal_runner.h; the tests run the
// same source, compiled as C++, on CPU tensors.
class KernelRunner {
 public:
  virtual ~KernelRunner() = default;

  // Runs one launch with the tensors as its buffers, in order; the arguments follow
  // them. Tensors are contiguous. May return before the device is done; later work on
  // the same device sees the results. Internal with the device's own words on failure.
  virtual absl::Status Run(const Launch& launch, absl::Span<const at::Tensor> buffers) = 0;
};

}  // namespace mechinterp::engine::metal

#endif  // SERVICES_ENGINE_METAL_KERNEL_RUNNER_H_
