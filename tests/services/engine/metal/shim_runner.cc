#include "tests/services/engine/metal/shim_runner.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/services/engine/metal/compiled_kernels.h"

namespace mechinterp::engine::metal {

absl::Status ShimRunner::Run(const Launch& launch, absl::Span<const at::Tensor> buffers) {
  ++launches;
  last_kernel = launch.kernel;
  const auto found = CompiledKernels(lookup_).find(launch.kernel);
  if (found == CompiledKernels(lookup_).end()) return absl::InternalError("no kernel " + launch.kernel);
  const BoundKernel& kernel = found->second;
  if (static_cast<int>(buffers.size()) + 1 != kernel.buffer_count) {
    return absl::InternalError(absl::StrCat(launch.kernel, " has ", kernel.buffer_count - 1, " buffers"));
  }
  if (launch.group_size[1] != 1 || launch.threads[0] % launch.group_size[0] != 0) {
    return absl::InternalError("not whole threadgroups of one row");
  }
  std::vector<void*> pointers;
  for (const at::Tensor& buffer : buffers) {
    if (!buffer.is_contiguous()) return absl::InternalError("a buffer is not contiguous");
    pointers.push_back(buffer.data_ptr());
  }
  MetalLinearArguments arguments = launch.arguments;
  pointers.push_back(&arguments);
  const std::string error = metal_shim::Dispatch(
      launch.threads[0] / launch.group_size[0], launch.threads[1], static_cast<int>(launch.group_size[0]),
      [&](const metal_shim::ThreadPosition& position) { kernel.thread(pointers.data(), position); });
  return error.empty() ? absl::OkStatus() : absl::InternalError(error);
}

}  // namespace mechinterp::engine::metal
