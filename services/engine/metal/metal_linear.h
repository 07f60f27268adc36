#ifndef SERVICES_ENGINE_METAL_METAL_LINEAR_H_
#define SERVICES_ENGINE_METAL_METAL_LINEAR_H_

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "services/engine/metal/kernel_library.h"
#include "services/engine/metal/kernel_runner.h"

namespace mechinterp::engine::metal {

// A matrix as kernel_library.h says, on the device that multiplies it.
struct QuantizedMatrix {
  NumberFormat format = NumberFormat::kNf4;
  int64_t out = 0;
  int64_t in = 0;
  at::Tensor weights;  // contiguous; kNf4: uint8 [ceil(out * in / 2)]; kInt8: int8 [out * in]
  at::Tensor scales;   // contiguous fp32; kNf4: [ceil(out * in / 64)]; kInt8: [out * ceil(in / 64)]
};

// y[rows, out] = x[rows, in] w[out, in]^T on x's device; x contiguous, fp32, fp16 or
// bf16. y is of x's type for kNf4, fp32 for kInt8.
//
// Up to kMaxLinearRows rows a kernel multiplies straight from the quantized form,
// with fp32 sums whose order depends on `in` alone: a row's bits are the same
// whatever shares its batch. More rows: panels of w are dequantized and multiplied by
// ATen. Without a runner (null) ATen does all of it, for any device that has MPS's ops.
//
// InvalidArgument for operands that do not fit; what the runner says if it fails:
// the caller may log that and go on without one. ATen's exceptions pass through.
// Only from the thread that owns the device.
absl::StatusOr<at::Tensor> Linear(const at::Tensor& x, const QuantizedMatrix& w, KernelRunner* runner);

// Rows [first_output, first_output + outputs) of w as [outputs, in] of the type given,
// by a kernel or, without a runner, by ATen. Errors as above.
absl::StatusOr<at::Tensor> Dequantize(const QuantizedMatrix& w, int64_t first_output, int64_t outputs,
                                      at::ScalarType type, KernelRunner* runner);

}  // namespace mechinterp::engine::metal

#endif  // SERVICES_ENGINE_METAL_METAL_LINEAR_H_
