// 8-bit weights with a scale for each group.
#include "services/engine/kernels/weight_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/multiply_int8.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/engine/kernels/products-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

template <int kByte>
HWY_INLINE VF SignedByte(VU bytes) {
  const hn::Vec<I> top = hn::BitCast(I(), hn::ShiftLeft<24 - 8 * kByte>(bytes));
  return hn::ConvertTo(F(), hn::ShiftRight<24>(top));
}

struct Int8Weights {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesPerOctet = 2;
  const uint8_t* data;
  HWY_INLINE Int8Weights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int octet, int v) const {
    const auto* fours = reinterpret_cast<const uint32_t*>(data);
    return SignedByte<kStep % 4>(hn::Load(U(), fours + (2 * octet + kStep / 4) * kPanelOutputs + v * kLanes));
  }
};

#if KERNELS_HAVE_BFLOAT16_PAIRS

struct Int8Pairs {
  using Arithmetic = PairArithmetic;
  using Table = NoTable;
  static constexpr int kLinesPerOctet = 2;
  static constexpr int64_t kExchange = 0x0703050106020400;  // first and third bytes, second and fourth
  const uint8_t* data;
  const __m512i upper_halves =
      _mm512_set_epi16(63, 31, 61, 29, 59, 27, 57, 25, 55, 23, 53, 21, 51, 19, 49, 17, 47, 15, 45, 13, 43, 11,
                       41, 9, 39, 7, 37, 5, 35, 3, 33, 1);
  HWY_INLINE Int8Pairs(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VU Get(int octet, int v) const {
    const auto* fours = reinterpret_cast<const uint32_t*>(data);
    const VU bytes = hn::Load(U(), fours + (2 * octet + kStep / 2) * kPanelOutputs + v * kLanes);
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

#else

using Int8Pairs = NoPairs;

#endif

Products ChooseInt8(BFloat16Unit unit) { return ProductsFor<Int8Weights, Int8Pairs>(unit); }

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <vector>

#include "services/engine/kernels/quantize.h"

namespace mechinterp::engine::kernels {
namespace {

// Each group of a row by its own scale absmax / 127, rounded to nearest. Of four neighbouring
// inner indices the 64 outputs' values lie together; their scales come last.
void Pack(PackedMatrix& matrix, int64_t panel, const float* rows) {
  std::vector<int8_t> values(matrix.in);
  std::vector<float> scales(matrix.groups());
  for (int64_t r = 0; r < RowsInPanel(matrix, panel); ++r) {
    QuantizeInt8(rows + r * matrix.in, matrix.in, matrix.group, values.data(), scales.data());
    for (int64_t g = 0; g < matrix.groups(); ++g) {
      const int64_t first = g * matrix.group, count = std::min<int64_t>(matrix.group, matrix.in - first);
      uint8_t* group = GroupData(matrix, panel, g);
      Scales(matrix, group)[r] = scales[g];
      for (int64_t i = 0; i < count; ++i) {
        group[(i / 4 * kPanelOutputs + r) * 4 + i % 4] = static_cast<uint8_t>(values[first + i]);
      }
    }
  }
}

HWY_EXPORT(ChooseInt8);

Products Choose(BFloat16Unit unit) { return HWY_DYNAMIC_DISPATCH(ChooseInt8)(unit); }

}  // namespace

const WeightKernel kInt8Kernel = {Pack, Choose};

}  // namespace mechinterp::engine::kernels
#endif
