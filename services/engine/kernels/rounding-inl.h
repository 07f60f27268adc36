// What operands are rounded to, nearest even: included by files inside Highway's foreach_target,
// hence without the usual guard.

#if defined(SERVICES_ENGINE_KERNELS_ROUNDING_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_ROUNDING_INL_H_
#undef SERVICES_ENGINE_KERNELS_ROUNDING_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_ROUNDING_INL_H_
#endif

#include "hwy/highway.h"
#include "services/engine/kernels/arithmetic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

// The bits without the last kBits of the mantissa, rounded.
template <int kBits>
HWY_INLINE VU RoundMantissa(VU bits) {
  const U u;
  const VU last = hn::And(hn::ShiftRight<kBits>(bits), hn::Set(u, 1));
  const VU rounded = hn::Add(bits, hn::Add(last, hn::Set(u, (1u << (kBits - 1)) - 1)));
  return hn::And(rounded, hn::Set(u, ~0u << kBits));
}

// A value of bf16, so with nothing in the lower half of each lane; a NaN stays one.
HWY_INLINE VF RoundToBFloat16(VF x) {
  const VF number = hn::BitCast(F(), RoundMantissa<16>(hn::BitCast(U(), x)));
  return hn::IfThenElse(hn::IsNaN(x), hn::BitCast(F(), hn::Set(U(), 0x7fc00000u)), number);
}

// A value of fp16; a NaN stays one.
HWY_INLINE VF RoundToFloat16(VF x) {
  const F f;
  const VF size = hn::Abs(x);
  const VF normal = hn::BitCast(f, RoundMantissa<13>(hn::BitCast(U(), size)));
  // Adding 0.5 leaves the multiples of fp16's smallest.
  const VF half = hn::Set(f, 0.5f), subnormal = hn::Sub(hn::Add(size, half), half);
  const VF finite = hn::IfThenElse(hn::Lt(size, hn::Set(f, 0x1p-14f)), subnormal, normal);
  const VF infinity = hn::BitCast(f, hn::Set(U(), 0x7f800000u));
  const VF number = hn::IfThenElse(hn::Ge(size, hn::Set(f, 65520.0f)), infinity, finite);
  return hn::IfThenElse(hn::IsNaN(x), x, hn::CopySign(number, x));
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
