#ifndef TESTS_SERVICES_ENGINE_METAL_SHIM_RUNNER_H_
#define TESTS_SERVICES_ENGINE_METAL_SHIM_RUNNER_H_

#include "services/engine/metal/kernel_runner.h"

namespace mechinterp::engine::metal {

// Runs the kernels, compiled as C++, on CPU tensors. Counts launches.
class ShimRunner final : public KernelRunner {
 public:
  explicit ShimRunner(Nf4Lookup lookup = Nf4Lookup::kShuffle) : lookup_(lookup) {}
  absl::Status Run(const Launch& launch, absl::Span<const at::Tensor> buffers) override;

  int launches = 0;
  std::string last_kernel;

 private:
  const Nf4Lookup lookup_;
};

}  // namespace mechinterp::engine::metal

#endif  // TESTS_SERVICES_ENGINE_METAL_SHIM_RUNNER_H_
