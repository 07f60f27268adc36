#ifndef SERVICES_ENGINE_BASE_RANDOM_H_
#define SERVICES_ENGINE_BASE_RANDOM_H_

#include <cmath>
#include <cstdint>
#include <numbers>

#include "services/common/hash.h"

namespace mechinterp::engine {

// Counter-based random numbers: a value depends on its key alone, never on what
// was drawn before, so batching cannot change it.

// One step of SplitMix64 from the state `x`.
inline uint64_t Mix64(uint64_t x) { return SplitMix64(x).Next(); }

inline uint64_t RandomBits(uint64_t seed, uint64_t stream, uint64_t counter) {
  return Mix64(Mix64(Mix64(seed) ^ stream) ^ counter);
}

// In [0, 1), with 53 bits.
inline double RandomUniform(uint64_t seed, uint64_t stream, uint64_t counter) {
  return static_cast<double>(RandomBits(seed, stream, counter) >> 11) * 0x1p-53;
}

// Standard normal, by the Box-Muller transform.
inline double RandomNormal(uint64_t seed, uint64_t stream, uint64_t counter) {
  const double radius = std::sqrt(-2 * std::log(1 - RandomUniform(seed, stream, 2 * counter)));
  return radius * std::cos(2 * std::numbers::pi * RandomUniform(seed, stream, 2 * counter + 1));
}

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_BASE_RANDOM_H_
