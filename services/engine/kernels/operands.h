#ifndef SERVICES_ENGINE_KERNELS_OPERANDS_H_
#define SERVICES_ENGINE_KERNELS_OPERANDS_H_

#include <cstdint>

#include "services/engine/kernels/bfloat16_unit.h"
#include "services/engine/kernels/number_format.h"

namespace mechinterp::engine::kernels {

// What multiply.cc and multiply_transposed.cc have in common about the rows that are multiplied
// with weights.

// What multiplies operands of a compute type, with the instruction set in use.
BFloat16Unit UnitFor(NumberFormat compute);

// Operands that products in tiles read without need: two tiles of 16 rows begin with at
// least one row that is there.
inline constexpr int64_t kMostRowsPastTheLast = 31;

// A product is worth another thread from so many multiplications on.
inline constexpr int64_t kMultiplicationsWorthAThread = 1 << 17;

// The calling thread's room for operands, whose lines of 64 bytes are whole cache lines; kept,
// so that not every product allocates. What it held before is lost.
uint32_t* KeptOperands(int64_t words);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_OPERANDS_H_
