#ifndef SERVICES_ENGINE_METAL_METAL_RUNNER_H_
#define SERVICES_ENGINE_METAL_METAL_RUNNER_H_

#include "absl/status/statusor.h"
#include "services/engine/metal/kernel_runner.h"

namespace mechinterp::engine::metal {

// Compiles the kernels for this machine's GPU through libtorch (2.6 or newer: its
// DynamicMetalShaderLibrary is plain C++). The runner takes MPS tensors.
//
// It lives until the process ends: libtorch's own Metal objects may be gone before
// ours would be. Call it once, and the runner only from the thread that calls it;
// libtorch's MPS back end is not thread-safe.
//
// Unimplemented where there is no Metal or libtorch is older, Unavailable where
// libtorch sees no GPU, Internal with the compiler's words if the source does not
// compile there. Callers then go on without a runner (metal_linear.h).
absl::StatusOr<KernelRunner*> StartMetalRunner(Nf4Lookup lookup = Nf4Lookup::kShuffle);

}  // namespace mechinterp::engine::metal

#endif  // SERVICES_ENGINE_METAL_METAL_RUNNER_H_
