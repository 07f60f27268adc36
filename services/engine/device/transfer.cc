#include "services/engine/device/transfer.h"

#include <ATen/Functions.h>

namespace mechinterp::engine {

at::Tensor ToHost(const at::Tensor& there) {
  TORCH_CHECK(there.is_contiguous() && there.scalar_type() == at::kFloat,
              "only contiguous fp32 values are copied to the host");
  return there.is_cpu() ? there.clone() : there.to(at::kCPU);
}

at::Tensor ToDevice(const at::Tensor& host, const at::Device& device) {
  TORCH_CHECK(host.is_cpu() && host.is_contiguous(), "only contiguous host values are copied to a device");
  TORCH_CHECK(host.nbytes() < size_t{4} << 30, "4 GiB and more are not copied to a device in one piece");
  return host.to(device);
}

void Overwrite(const at::Tensor& there, const at::Tensor& host) {
  TORCH_CHECK(there.is_contiguous() && there.scalar_type() == at::kFloat && host.is_cpu() &&
                  host.is_contiguous() && host.scalar_type() == at::kFloat,
              "only contiguous fp32 values are copied to a device");
  there.copy_(host);
}

}  // namespace mechinterp::engine
