// Products of bf16 pairs, which AVX-512's machines may have: an Arithmetic of
// multiply-inl.h, and the values of a decoded group. Whether the machine has them is asked at run time
// (bfloat16_unit.h): they are no target of Highway's own.

#if defined(SERVICES_ENGINE_KERNELS_PAIRS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_PAIRS_INL_H_
#undef SERVICES_ENGINE_KERNELS_PAIRS_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_PAIRS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "services/engine/kernels/arithmetic-inl.h"
#include "services/engine/kernels/matrix.h"

// Whether this instruction set's machines may multiply bf16.
#undef KERNELS_HAVE_BFLOAT16_PAIRS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define KERNELS_HAVE_BFLOAT16_PAIRS 1
#else
#define KERNELS_HAVE_BFLOAT16_PAIRS 0
#endif

#if KERNELS_HAVE_BFLOAT16_PAIRS

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

// A step is two neighbouring inner indices; x holds them as one 32-bit word.
struct PairArithmetic {
  using Vector = VU;
  static constexpr int kSteps = 4;
  static HWY_INLINE VF MultiplyAdd(uint32_t x, VU w, VF sum) {
    // The intrinsic would need another target for all that is inlined around it.
    const VU pair = hn::Set(U(), x);
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(pair.raw));
    return sum;
  }
};

// Neighbouring lanes as pairs of bf16, nearest even: those of `low`, then those of `high`.
HWY_INLINE VU RoundToPairs(VF low, VF high) {
  VU pairs;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(pairs.raw) : "v"(low.raw), "v"(high.raw));
  return pairs;
}

struct PairWeights : ByRows {
  using Arithmetic = PairArithmetic;
  using Table = NoTable;
  static constexpr int kLinesPerOctet = 4;
  static constexpr int64_t kExchange = 0x0706030205040100;  // see transpose-inl.h
  const uint8_t* data;
  HWY_INLINE PairWeights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VU Get(int octet, int v) const {
    const auto* pairs = reinterpret_cast<const uint32_t*>(data);
    return hn::Load(U(), pairs + (4 * octet + kStep) * kPanelOutputs + v * kLanes);
  }
};

// See multiply-inl.h.
void AddRowsOfTile(const PairWeights& tile, int octets, const uint32_t* x, int64_t n, const float* scales,
                   float* totals);

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // AVX-512

#endif  // per-target include guard
