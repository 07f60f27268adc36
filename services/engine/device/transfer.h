#ifndef SERVICES_ENGINE_DEVICE_TRANSFER_H_
#define SERVICES_ENGINE_DEVICE_TRANSFER_H_

#include <ATen/core/Tensor.h>

namespace mechinterp::engine {

// The only ways between a device's memory and the host's, since libtorch's for MPS are
// right only for plain copies: contiguous on both sides, of one type, waited for, and
// below 4 GiB. They throw c10::Error for others. Only from the thread that uses the device.

// A tensor's values on the host, in memory of their own; `there` is fp32.
at::Tensor ToHost(const at::Tensor& there);

// A host tensor, of any type, as one of the device's.
at::Tensor ToDevice(const at::Tensor& host, const at::Device& device);

// Overwrites fp32 values of the device by the host's.
void Overwrite(const at::Tensor& there, const at::Tensor& host);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_DEVICE_TRANSFER_H_
