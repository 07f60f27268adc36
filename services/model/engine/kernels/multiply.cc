#include <algorithm>
#include <bit>
#include <type_traits>
#include <vector>

#include "services/common/float16.h"
#include "services/model/engine/kernels/kernels.h"
#include "services/model/engine/kernels/matrix.h"
#include "services/model/engine/kernels/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/model/engine/kernels/multiply.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/model/engine/kernels/multiply-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

HWY_ATTR void MultiplyPanels(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin, int64_t end,
                             float* y) {
  switch (w.format) {
    case WeightFormat::kFloat32:
      return MultiplyPanelsOf<FloatWeights, FloatWeights>(w, x, n, begin, end, y);
    case WeightFormat::kBFloat16:
      return MultiplyPanelsOf<BFloat16Weights, FloatWeights>(w, x, n, begin, end, y);
    case WeightFormat::kInt8:
      return MultiplyPanelsOf<Int8Weights, FloatWeights>(w, x, n, begin, end, y);
    case WeightFormat::kNf4:
      return MultiplyPanelsOf<Nf4Weights, FloatWeights>(w, x, n, begin, end, y);
  }
}

// Products of bf16 pairs, for the instruction sets that can have them. Whether the
// machine does is asked at run time: they are no target of Highway's own.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3

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

struct PairWeights {
  using Arithmetic = PairArithmetic;
  using Table = NoTable;
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
  const uint8_t* data;
  const __m512i upper_halves =
      _mm512_set_epi16(63, 31, 61, 29, 59, 27, 57, 25, 55, 23, 53, 21, 51, 19, 49, 17, 47, 15, 45, 13, 43, 11,
                       41, 9, 39, 7, 37, 5, 35, 3, 33, 1);
  HWY_INLINE Int8Pairs(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VU Get(int eighth, int v) const {
    const auto* fours = reinterpret_cast<const uint32_t*>(data);
    const VU bytes = hn::Load(U(), fours + (2 * eighth + kStep / 2) * kPanelOutputs + v * kLanes);
    // Small integers: bf16 holds them exactly, in the upper halves of their fp32.
    return VU{_mm512_permutex2var_epi16(Value<2 * (kStep % 2)>(bytes), upper_halves,
                                        Value<2 * (kStep % 2) + 1>(bytes))};
  }

  // A signed byte of each lane as fp32. Its bits but for the sign, which is turned, are
  // the last ones of 2^23 + 128 + value.
  template <int kByte>
  HWY_INLINE static __m512i Value(VU bytes) {
    const __m512i byte = kByte == 0 ? bytes.raw : _mm512_srli_epi32(bytes.raw, 8 * kByte);
    const __m512i sum =
        _mm512_ternarylogic_epi32(byte, _mm512_set1_epi32(0xff), _mm512_set1_epi32(0x4b000080), 0x6a);
    return _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(sum), _mm512_set1_ps(0x1p23f + 128)));
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

void MultiplyPanelsInPairs(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin, int64_t end,
                           float* y) {
  switch (w.format) {
    case WeightFormat::kBFloat16:
      return MultiplyPanelsOf<PairWeights, PairWeights>(w, x, n, begin, end, y);
    case WeightFormat::kInt8:
      return MultiplyPanelsOf<Int8Pairs, PairWeights>(w, x, n, begin, end, y);
    case WeightFormat::kNf4:
      return MultiplyPanelsOf<Nf4Pairs, PairWeights>(w, x, n, begin, end, y);
    case WeightFormat::kFloat32:
      return;  // never packed for bf16 products
  }
}
bool HasPairs() { return __builtin_cpu_supports("avx512bf16"); }

#else

void MultiplyPanelsInPairs(const PackedMatrix&, const uint32_t*, int64_t, int64_t, int64_t, float*) {}
bool HasPairs() { return false; }

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(MultiplyPanels);
HWY_EXPORT(MultiplyPanelsInPairs);
HWY_EXPORT(HasPairs);

namespace {

// To the upper half of the sum, nearest even; x is finite or NaN (which stays one).
inline uint16_t RoundToBFloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}

// One group of one row of x as the inner loops read it: values rounded to the compute
// type, zeros past the row's end.
void PackGroup(const float* row, int64_t count, const PackedMatrix& w, bool pairs, uint32_t* out) {
  if (pairs) {
    auto* halves = reinterpret_cast<uint16_t*>(out);
    for (int64_t i = 0; i < count; ++i) halves[i] = RoundToBFloat16(row[i]);
    std::fill(halves + count, halves + w.group, uint16_t{0});
    return;
  }
  auto* values = reinterpret_cast<float*>(out);
  switch (w.compute) {
    case ComputeType::kFloat32:
      std::copy(row, row + count, values);
      break;
    case ComputeType::kBFloat16:
      for (int64_t i = 0; i < count; ++i) values[i] = BFloat16ToFloat(RoundToBFloat16(row[i]));
      break;
    case ComputeType::kFloat16:
      for (int64_t i = 0; i < count; ++i) values[i] = Float16ToFloat(FloatToFloat16(row[i]));
      break;
  }
  std::fill(values + count, values + w.group, 0.0f);
}

// All rows, group by group: [groups][n][group].
void PackOperands(const float* x, int64_t n, const PackedMatrix& w, bool pairs, uint32_t* out) {
  constexpr int64_t kValuesWorthAThread = 1 << 16;
  const int64_t words = pairs ? w.group / 2 : w.group;
  const int64_t grain = std::max<int64_t>(1, kValuesWorthAThread / (n * w.group));
  ParallelFor(0, w.groups(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = g * w.group, count = std::min<int64_t>(w.group, w.in - first);
      for (int64_t r = 0; r < n; ++r)
        PackGroup(x + r * w.in + first, count, w, pairs, out + (g * n + r) * words);
    }
  });
}

}  // namespace

bool MultipliesBFloat16() { return HWY_DYNAMIC_DISPATCH(HasPairs)(); }

void MultiplyEach(const float* x, int64_t n, std::span<const Product> products) {
  if (n == 0 || products.empty()) return;
  const PackedMatrix& first = *products[0].w;
  int64_t panels = 0;
  for (const Product& product : products) {
    const PackedMatrix& w = *product.w;
    if (w.in != first.in || w.group != first.group || w.compute != first.compute) {
      for (const Product& each : products) Multiply(x, n, *each.w, each.y);
      return;
    }
    panels += w.panels();
  }
  constexpr int64_t kMultiplicationsWorthAThread = 1 << 17;
  const bool pairs = first.compute == ComputeType::kBFloat16 && MultipliesBFloat16();
  thread_local std::vector<uint32_t> operands;  // kept: no allocation for every product
  operands.resize(first.groups() * first.group * n / (pairs ? 2 : 1));
  PackOperands(x, n, first, pairs, operands.data());
  const auto part =
      pairs ? HWY_DYNAMIC_DISPATCH(MultiplyPanelsInPairs) : HWY_DYNAMIC_DISPATCH(MultiplyPanels);
  const int64_t grain =
      std::max<int64_t>(1, kMultiplicationsWorthAThread / std::max<int64_t>(1, n * first.in * kPanelOutputs));
  const uint32_t* packed = operands.data();
  const auto multiply = [&](int64_t begin, int64_t end) {
    for (const Product& product : products) {
      const int64_t count = product.w->panels();
      if (begin < count && end > 0) {
        part(*product.w, packed, n, std::max<int64_t>(begin, 0), std::min(end, count), product.y);
      }
      begin -= count;
      end -= count;
    }
  };
  ParallelFor(0, panels, grain, multiply, products.back().w->next);
}

void Multiply(const float* x, int64_t n, const PackedMatrix& w, float* y) {
  const Product product{&w, y};
  MultiplyEach(x, n, std::span(&product, 1));
}

const char* InstructionSet() {
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;  // the machine's that are compiled
  return hwy::TargetName(targets & -targets);
}

}  // namespace mechinterp::engine::kernels
#endif
