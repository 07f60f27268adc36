// Products of bf16 pairs, which AVX-512's machines may have: see multiply-inl.h, whose
// Arithmetic and Weights these are. Whether the machine has them is asked at run time
// (bfloat16_unit.h): they are no target of Highway's own.

#if defined(SERVICES_ENGINE_KERNELS_PAIRS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_PAIRS_INL_H_
#undef SERVICES_ENGINE_KERNELS_PAIRS_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_PAIRS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/multiply-inl.h"

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3

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

struct PairWeights : ByRows {
  using Arithmetic = PairArithmetic;
  using Table = NoTable;
  static constexpr int kLinesOfAnEighth = 4;
  const uint8_t* data;
  HWY_INLINE PairWeights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VU Get(int eighth, int v) const {
    const auto* pairs = reinterpret_cast<const uint32_t*>(data);
    return hn::Load(U(), pairs + (4 * eighth + kStep) * kPanelOutputs + v * kLanes);
  }
};

struct Int8Pairs {
  using Arithmetic = PairArithmetic;
  using Table = NoTable;
  static constexpr int kLinesOfAnEighth = 2;
  const uint8_t* data;
  const __m512i upper_halves =
      _mm512_set_epi16(63, 31, 61, 29, 59, 27, 57, 25, 55, 23, 53, 21, 51, 19, 49, 17, 47, 15, 45, 13, 43, 11,
                       41, 9, 39, 7, 37, 5, 35, 3, 33, 1);
  HWY_INLINE Int8Pairs(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VU Get(int eighth, int v) const {
    const auto* fours = reinterpret_cast<const uint32_t*>(data);
    const VU bytes = hn::Load(U(), fours + (2 * eighth + kStep / 2) * kPanelOutputs + v * kLanes);
    const __m512i two = kStep % 2 == 0 ? bytes.raw : _mm512_srli_epi32(bytes.raw, 16);
    // Small integers: bf16 holds them exactly, in the upper halves of their fp32.
    return VU{_mm512_permutex2var_epi16(Value<0>(two), upper_halves, Value<1>(two))};
  }

  // The first or second byte of each lane, signed, as fp32. Its bits but for the sign,
  // which is turned, are those of 128 + value in the mantissa of 2^23 or of 2^15.
  template <int kByte>
  HWY_INLINE static __m512i Value(__m512i bytes) {
    constexpr int kMask = 0xff << 8 * kByte, kBias = kByte == 0 ? 0x4b000080 : 0x47008000;
    const __m512i sum =
        _mm512_ternarylogic_epi32(bytes, _mm512_set1_epi32(kMask), _mm512_set1_epi32(kBias), 0x6a);
    const __m512 bias = _mm512_castsi512_ps(_mm512_set1_epi32(kBias));
    return _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(sum), bias));
  }
};

// 16-bit lookups: the even index in the low half of a lane, the odd one in the high
// half. A lookup reads five bits, so the table stands in the register twice.
struct PairTable {
  __m512i values;
  HWY_INLINE explicit PairTable(const float* code) {
    // The code is rounded to bf16 already: the upper halves of its fp32 values.
    const VU bits = hn::ShiftRight<16>(hn::BitCast(U(), hn::LoadU(F(), code)));
    values = _mm512_broadcast_i64x4(_mm512_cvtepi32_epi16(bits.raw));
  }
};

struct Nf4Pairs {
  using Arithmetic = PairArithmetic;
  using Table = PairTable;
  static constexpr int kLinesOfAnEighth = 1;
  const uint8_t* data;
  const PairTable& table;
  HWY_INLINE Nf4Pairs(const uint8_t* group, const PairTable& code) : data(group), table(code) {}
  template <int kStep>
  HWY_INLINE VU Get(int eighth, int v) const {
    const auto* eights = reinterpret_cast<const uint32_t*>(data);
    const VU indices = hn::Load(U(), eights + eighth * kPanelOutputs + v * kLanes);
    return VU{_mm512_permutexvar_epi16(_mm512_srli_epi16(indices.raw, 4 * kStep), table.values)};
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // AVX-512

#endif  // per-target include guard
