#ifndef SERVICES_ENGINE_KERNELS_BFLOAT16_UNIT_H_
#define SERVICES_ENGINE_KERNELS_BFLOAT16_UNIT_H_

namespace mechinterp::engine::kernels {

// What multiplies bf16 natively on this machine, from worst to best.
enum class BFloat16Unit {
  kNone,   // fp32 products of rounded operands
  kPairs,  // AVX-512 BF16: two products for each of 16 lanes
  kTiles,  // AMX BF16: 16 x 32 x 16 products at once
};

// Asks the processor, and for tiles the system too, which must save them (Linux 5.16
// and later; the permission is the whole process's). The answer does not change,
// but by LimitBFloat16Unit. Thread-safe.
BFloat16Unit DetectedBFloat16Unit();

// At most this one from now on, so that tests and benchmarks see the others too. Not while
// anything is multiplied.
void LimitBFloat16Unit(BFloat16Unit most);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_BFLOAT16_UNIT_H_
