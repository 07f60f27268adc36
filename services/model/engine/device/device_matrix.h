#ifndef SERVICES_MODEL_ENGINE_DEVICE_DEVICE_MATRIX_H_
#define SERVICES_MODEL_ENGINE_DEVICE_DEVICE_MATRIX_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/types/span.h"
#include "services/model/engine/kernels/matrix.h"
#include "services/model/engine/metal/metal_linear.h"
#include "services/model/engine/nf4.h"

namespace mechinterp::engine {

// A matrix [out, in] in the memory of a device that libtorch computes on: quantized,
// or as values in the type that products are computed in.
struct DeviceMatrix {
  metal::QuantizedMatrix quantized;  // where `values` is undefined
  at::Tensor values;                 // [out, in], contiguous

  int64_t bytes() const;
};

// libtorch's names for a device and for what operands are rounded to.
at::Device TorchDevice(const struct Device& device);
at::ScalarType TorchType(kernels::ComputeType type);

// NF4 stays as it is stored; where the code is not NF4's own, as values.
DeviceMatrix UploadNf4(const Nf4Matrix& source, kernels::ComputeType compute, const at::Device& device);
// Each 64 of a row by their own scale absmax / 127, rounded to nearest, as the CPU's
// kernels hold it. values: [out, in].
DeviceMatrix UploadInt8(absl::Span<const float> values, int64_t out, int64_t in, const at::Device& device);
DeviceMatrix UploadValues(absl::Span<const float> values, int64_t out, int64_t in,
                          kernels::ComputeType compute, const at::Device& device);

// x w^T, fp32 [n, out]. x: fp32, contiguous, on the matrix's device. `runner`: see
// metal_linear.h; may be null. Throws what libtorch does, and std::runtime_error with
// the kernel's message.
at::Tensor MultiplyOnDevice(const at::Tensor& x, const DeviceMatrix& w, kernels::ComputeType compute,
                            metal::KernelRunner* runner);

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_DEVICE_DEVICE_MATRIX_H_
