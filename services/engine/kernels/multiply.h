#ifndef SERVICES_ENGINE_KERNELS_MULTIPLY_H_
#define SERVICES_ENGINE_KERNELS_MULTIPLY_H_

#include <cstdint>
#include <span>
#include <string>

#include "services/engine/kernels/bfloat16_unit.h"
#include "services/engine/kernels/matrix.h"

namespace mechinterp::engine::kernels {

// What bf16 is multiplied by, with the instruction set in use.
BFloat16Unit UnitInUse();
inline bool MultipliesBFloat16() { return UnitInUse() != BFloat16Unit::kNone; }

// y[n, out] = x[n, in] w^T. fp32 in and out, contiguous, not overlapping. Uses
// the pool of parallel.h; thread-safe.
void Multiply(const float* x, int64_t n, const PackedMatrix& w, float* y);

// The same for several matrices at once, of one input length, group and compute
// type (else one after the other): threads then wait for each other only once. Of a matrix
// whose outputs are not all wanted, y [n, outputs] has those of a range, with the same bits.
struct Product {
  const PackedMatrix* w;
  float* y;
  OutputRange outputs = {};
};
void MultiplyEach(const float* x, int64_t n, std::span<const Product> products);

// y[n, out] = x[n, inputs] times w's columns from `first_input` on, transposed: the product with zeros
// for all the other inputs, with its bits.
void MultiplyInputs(const float* x, int64_t n, const PackedMatrix& w, int64_t first_input, int64_t inputs,
                    float* y);

// Name of the instruction set in use, "AVX3_ZEN4" say, or "AVX3 and AMX".
std::string InstructionSet();

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_MULTIPLY_H_
