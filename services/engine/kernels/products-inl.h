// A format's products on one instruction set, by what its machines multiply: included by the
// formats' files inside Highway's foreach_target, hence without the usual guard.

#if defined(SERVICES_ENGINE_KERNELS_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_PRODUCTS_INL_H_
#undef SERVICES_ENGINE_KERNELS_PRODUCTS_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_PRODUCTS_INL_H_
#endif

#include <type_traits>

#include "hwy/highway.h"
#include "services/engine/kernels/bfloat16_unit.h"
#include "services/engine/kernels/multiply-inl.h"
#include "services/engine/kernels/pairs-inl.h"
#include "services/engine/kernels/tiles-inl.h"
#include "services/engine/kernels/transpose-inl.h"
#include "services/engine/kernels/weight_kernel.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

// In the place of a format's pairs: it has none, or this instruction set's machines have not.
struct NoPairs {};

// Weights: the format's values in fp32. Pairs: its values as pairs of bf16, or NoPairs.
template <class Weights, class Pairs>
Products ProductsFor([[maybe_unused]] BFloat16Unit unit) {
#if KERNELS_HAVE_BFLOAT16_PAIRS
  if constexpr (!std::is_same_v<Pairs, NoPairs>) {
    if (unit == BFloat16Unit::kTiles) return {MultiplyPanelsInTilesOf<Pairs>, DecodeTransposedPairs<Pairs>};
    if (unit == BFloat16Unit::kPairs)
      return {MultiplyPanelsOf<Pairs, PairWeights>, DecodeTransposedPairs<Pairs>};
  }
#endif
  return {MultiplyPanelsOf<Weights, FloatWeights>, DecodeTransposedValues<Weights>};
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
