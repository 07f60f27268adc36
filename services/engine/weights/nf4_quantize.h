#ifndef SERVICES_ENGINE_WEIGHTS_NF4_QUANTIZE_H_
#define SERVICES_ENGINE_WEIGHTS_NF4_QUANTIZE_H_

#include <array>

#include "absl/status/statusor.h"
#include "services/engine/checkpoint/nf4.h"

namespace mechinterp::engine {

// Quantizes a floating-point matrix, bit for bit as bitsandbytes does. Uses
// the pool of kernels/parallel.h. InvalidArgument when a value is not finite.
absl::StatusOr<Nf4Matrix> QuantizeToNf4(const TensorView& view, bool double_quantization);

// The 256 values of bitsandbytes' signed dynamic 8-bit map, ascending
// (Dettmers 2015, "8-Bit Approximations for Parallelism in Deep Learning").
const std::array<float, 256>& DynamicMap();

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_NF4_QUANTIZE_H_
