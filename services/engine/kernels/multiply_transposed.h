#ifndef SERVICES_ENGINE_KERNELS_MULTIPLY_TRANSPOSED_H_
#define SERVICES_ENGINE_KERNELS_MULTIPLY_TRANSPOSED_H_

#include <cstdint>
#include <span>

#include "services/engine/kernels/matrix.h"

namespace mechinterp::engine::kernels {

// Products by the transposed matrix, dx = dy w, from the packed weights of y = x w^T: what takes
// gradients back through it.
//
// Operands: a value of dy times its weights' scale (of its output, for a group of inner
// indices), rounded to fp32 and then to the compute type. Weights are the format's values
// before their scales, as they are. To fp16 a row is rounded as if it had been multiplied by
// the power of two that brings its largest operand to [2^14, 2^15): small gradients do not
// vanish, and nothing that is finite in fp32 overflows.
//
// Batch invariance, as in matrix.h: an element of dx is, panel by panel in order and in each
// half by half, the sum of the half's 32 products in order, added to a running total. Of
// products of bf16 in tiles a panel's sum is, 32 outputs after the other, that of the even
// ones' products in order plus that of the odd ones'. Outputs that are left out count as zeros
// in dy. Neither the number of rows nor of threads changes that. In fp32 the bits are the same
// on every instruction set with fused multiply-add.

// The part of dx that one matrix gives.
struct TransposedProduct {
  const PackedMatrix* w;
  const float* dy;  // [n, outputs]: row r at dy + r * stride
  int64_t stride;
  OutputRange outputs = {};
};

// dx[n, in] = the sum of the products, each by itself added to those before it. Of one length
// `in`, in any formats; at least one. fp32 in and out, dx contiguous, not overlapping. Takes
// room for the operands of at most 128 rows at a time. Uses the pool of parallel.h; thread-safe.
void MultiplyTransposed(int64_t n, std::span<const TransposedProduct> products, float* dx);

// With the whole of one matrix; dy[n, out] is contiguous.
void MultiplyTransposed(const float* dy, int64_t n, const PackedMatrix& w, float* dx);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_MULTIPLY_TRANSPOSED_H_
