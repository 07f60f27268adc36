#ifndef SERVICES_ENGINE_WEIGHTS_DEVICE_MATRIX_H_
#define SERVICES_ENGINE_WEIGHTS_DEVICE_MATRIX_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "services/engine/checkpoint/nf4.h"
#include "services/engine/device/device.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/metal/metal_linear.h"

namespace mechinterp::engine {

// A matrix [out, in] in the memory of a device that libtorch computes on: quantized,
// or as values in the type that products are computed in.
struct DeviceMatrix {
  metal::QuantizedMatrix quantized;  // where there are no pieces
  // [at most kMaxPieceRows, in] each, one after the other, contiguous: MPS had errors in
  // products with more outputs (pytorch issue 116769), and copies a part of a tensor that
  // it multiplies by.
  std::vector<at::Tensor> pieces;
  static constexpr int64_t kMaxPieceRows = 32768;

  int64_t bytes() const;
};

// libtorch's names for a device and for what operands are rounded to.
at::Device TorchDevice(const Device& device);
at::ScalarType TorchType(NumberFormat type);

// Gives rows [first, first + count) of a matrix as fp32; false when one is not finite.
using ReadRows = absl::FunctionRef<bool(int64_t first, int64_t count, float* values)>;

// Whether a matrix can be uploaded as it is stored: its code is NF4's own.
bool IsStandardNf4(const Nf4Matrix& source);
DeviceMatrix UploadNf4(const Nf4Matrix& source, const at::Device& device);
// The others read so many rows at a time that the host never holds a second copy in fp32.
// Nothing when a value is not finite.
// Each 64 of a row by their own scale absmax / 127, rounded to nearest, as the CPU's
// kernels hold it.
std::optional<DeviceMatrix> UploadInt8(ReadRows read, int64_t out, int64_t in, const at::Device& device);
std::optional<DeviceMatrix> UploadValues(ReadRows read, int64_t out, int64_t in, NumberFormat compute,
                                         const at::Device& device);

// What products are made of, rounded to the compute type once for all of them. In fp16 each
// row is divided by its largest absolute value before: neither operands nor products that are
// finite in fp32 overflow.
struct DeviceOperand {
  at::Tensor values;   // [n, in] of the compute type
  at::Tensor divisor;  // fp32 [n, 1]; undefined: 1
};
// x: fp32 [n, in], contiguous.
DeviceOperand RoundOperand(const at::Tensor& x, NumberFormat compute);

// x w^T, fp32 [n, out], of an operand on the matrix's device. Products are rounded to the
// compute type too, unless `full_precision`. `runner`: see metal_linear.h; may be null. Throws
// what libtorch does, and std::runtime_error with the kernel's message.
at::Tensor MultiplyOnDevice(const DeviceOperand& x, const DeviceMatrix& w, bool full_precision,
                            metal::KernelRunner* runner);

// fp32 [n, in] of a gradient, fp32 [n, outputs], with respect to the outputs from first_output
// on: gradient w. Rounded as products are. Errors as above.
at::Tensor MultiplyTransposedOnDevice(const at::Tensor& gradient, const DeviceMatrix& w, int64_t first_output,
                                      NumberFormat compute, metal::KernelRunner* runner);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_DEVICE_MATRIX_H_
