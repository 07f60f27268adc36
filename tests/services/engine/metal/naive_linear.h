#ifndef TESTS_SERVICES_ENGINE_METAL_NAIVE_LINEAR_H_
#define TESTS_SERVICES_ENGINE_METAL_NAIVE_LINEAR_H_

#include <vector>

#include "services/engine/metal/metal_linear.h"

namespace mechinterp::engine::metal {

// The definitions, value by value, to hold the kernels to.

// Random codes or weights and scales; on the CPU.
QuantizedMatrix RandomMatrix(NumberFormat format, int64_t out, int64_t in, unsigned seed);

// w[output, k] in fp32: one multiplication.
float NaiveWeight(const QuantizedMatrix& w, int64_t output, int64_t k);

// Product and the sum of its terms' magnitudes, which bounds rounding errors.
struct NaiveProduct {
  double value = 0;
  double magnitude = 0;
};
// [rows * out], sums in fp64 over x as it is stored.
std::vector<NaiveProduct> NaiveLinear(const at::Tensor& x, const QuantizedMatrix& w);

}  // namespace mechinterp::engine::metal

#endif  // TESTS_SERVICES_ENGINE_METAL_NAIVE_LINEAR_H_
