#ifndef TESTS_BENCHMARKS_LIBTORCH_PRODUCTS_H_
#define TESTS_BENCHMARKS_LIBTORCH_PRODUCTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace mechinterp::benchmarks {

// libtorch's own products x w^T, the peers of kernels::Multiply. Like ours they go
// through copies of the weights in turn. Not thread-safe.
class LibtorchProduct {
 public:
  virtual ~LibtorchProduct() = default;
  virtual void Multiply(const at::Tensor& x) = 0;  // x [M, in] in this product's type
  virtual at::ScalarType type() const = 0;
};

// at::mm with unquantized weights.
std::unique_ptr<LibtorchProduct> UnquantizedProduct(int64_t in, int64_t out, at::ScalarType type);

// at::_weight_int4pack_mm_for_cpu: bf16 products with 4-bit weights in groups of 64.
// Null before libtorch 2.6.
std::unique_ptr<LibtorchProduct> Int4Product(int64_t in, int64_t out);

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_LIBTORCH_PRODUCTS_H_
