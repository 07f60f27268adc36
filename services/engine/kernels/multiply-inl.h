// The inner loops of matrix.h's Multiply, compiled once for each instruction set:
// included by the formats' files inside Highway's foreach_target, hence without the usual
// guard. A product is put together from two parts:
//   Arithmetic  what one step multiplies: fp32 values, or pairs of bf16
//   Weights     where a step's weights come from: a format, or a decoded tile
// Vectors hold neighbouring outputs; see matrix.h for the layout and the order of
// additions.

#if defined(SERVICES_ENGINE_KERNELS_MULTIPLY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_MULTIPLY_INL_H_
#undef SERVICES_ENGINE_KERNELS_MULTIPLY_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_MULTIPLY_INL_H_
#endif

#include <cstdint>
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "services/engine/kernels/arithmetic-inl.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/weight_kernel.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

// A block of accumulators that the registers hold: rows x vectors of outputs.
// 32 registers: 24 accumulators, 4 vectors of weights, the table. 16: 12 and 2.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
constexpr int kBlockVectors = 2;
#else
constexpr int kBlockVectors = 4;
#endif
constexpr int kBlockRows = 6;

// How the memory is asked for what will be multiplied some time after a group. Measured, one
// row of NF4 by two threads, in GB/s:
//                         at once   line by line
//   AMD Zen 5                51          39
//   Intel Emerald Rapids     17          24
// The latter's loads wait when a group's lines fill the core's queue of requests.
HWY_INLINE bool PrefetchesWholeGroup() {
#if HWY_ARCH_X86
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

// Asks line by line while the group is multiplied: first for the second-level cache, then
// for the first-level one.
class Prefetcher {
 public:
  Prefetcher() = default;  // asks for nothing more
  // Of `bytes` bytes a group.
  HWY_INLINE Prefetcher(const uint8_t* group, int64_t bytes, bool whole_group) {
    if (whole_group) {
      for (int64_t line = 0; line < bytes; line += 64) hwy::Prefetch(group + kWholeGroup + line);
    } else {
      *this = Prefetcher(group, kNear, kFar);
    }
  }
  HWY_INLINE Prefetcher(const uint8_t* group, int64_t near, int64_t far)
      : near_(group + near), near_to_far_(far - near) {}

  HWY_INLINE void PrefetchLine(int64_t line) const {
    if (near_ == nullptr) return;
    __builtin_prefetch(near_ + 64 * line + near_to_far_, 0, 2);
    __builtin_prefetch(near_ + 64 * line, 0, 3);
  }
  // An octet of a panel.
  template <class Weights>
  HWY_INLINE void PrefetchOctet(int octet) const {
    constexpr int kLines = Weights::kLinesPerOctet * (kPanelOutputs / 16);
    for (int i = 0; i < kLines; ++i) PrefetchLine(int64_t{octet} * kLines + i);
  }

 private:
  // Twice as far costs Zen 5 two to four hundredths.
  static constexpr int64_t kWholeGroup = 6 << 10;
  static constexpr int64_t kNear = 4608, kFar = 18 << 10;
  const uint8_t* near_ = nullptr;
  int64_t near_to_far_ = 0;
};

template <class Weights, int kStep, int kRows, int kVectors>
HWY_INLINE void Step(const Weights& weights, int octet, int first_vector, const uint32_t* x, int64_t x_stride,
                     VF (&sums)[kRows][kVectors]) {
  using A = typename Weights::Arithmetic;
  typename A::Vector w[kVectors];
  for (int v = 0; v < kVectors; ++v) w[v] = weights.template Get<kStep>(octet, first_vector + v);
  for (int r = 0; r < kRows; ++r) {
    const uint32_t value = x[r * x_stride + octet * A::kSteps + kStep];
    for (int v = 0; v < kVectors; ++v) sums[r][v] = A::MultiplyAdd(value, w[v], sums[r][v]);
  }
}

template <class Weights, int kRows, int kVectors>
HWY_INLINE void Octet(const Weights& weights, int octet, int first_vector, const uint32_t* x,
                      int64_t x_stride, VF (&sums)[kRows][kVectors]) {
  Step<Weights, 0>(weights, octet, first_vector, x, x_stride, sums);
  Step<Weights, 1>(weights, octet, first_vector, x, x_stride, sums);
  Step<Weights, 2>(weights, octet, first_vector, x, x_stride, sums);
  Step<Weights, 3>(weights, octet, first_vector, x, x_stride, sums);
  if constexpr (Weights::Arithmetic::kSteps == 8) {
    Step<Weights, 4>(weights, octet, first_vector, x, x_stride, sums);
    Step<Weights, 5>(weights, octet, first_vector, x, x_stride, sums);
    Step<Weights, 6>(weights, octet, first_vector, x, x_stride, sums);
    Step<Weights, 7>(weights, octet, first_vector, x, x_stride, sums);
  }
}

template <int kRows, int kVectors>
HWY_INLINE void Clear(VF (&sums)[kRows][kVectors]) {
  for (auto& row : sums) {
    for (VF& sum : row) sum = hn::Zero(F());
  }
}

// total += sum * scale, for [rows][vectors] of totals [rows][kPanelOutputs].
template <int kRows, int kVectors>
HWY_INLINE void AddToTotals(const VF (&sums)[kRows][kVectors], int first_vector, const float* scales,
                            float* totals) {
  const F f;
  for (int v = 0; v < kVectors; ++v) {
    const int offset = (first_vector + v) * kLanes;
    const VF scale = scales != nullptr ? hn::Load(f, scales + offset) : hn::Set(f, 1.0f);
    for (int r = 0; r < kRows; ++r) {
      float* total = totals + r * kPanelOutputs + offset;
      hn::Store(hn::MulAdd(sums[r][v], scale, hn::Load(f, total)), f, total);
    }
  }
}

// Adds one group's products of kRows rows and kVectors vectors of outputs to the
// totals [rows][kPanelOutputs], half a group after the other. Where the registers
// hold the sums of both halves they are made together: one row's few sums would
// otherwise wait for each other. x: the rows' operands of this group.
template <class Weights, int kRows, int kVectors>
HWY_INLINE void AddGroup(const Weights& weights, int octets, int first_vector, const uint32_t* x,
                         int64_t x_stride, const Prefetcher& prefetcher, const float* scales, float* totals) {
  constexpr bool kBothHalves = 2 * kRows <= kBlockRows;
  const int half = (octets + 1) / 2;
  VF first[kRows][kVectors];
  Clear(first);
  if constexpr (kBothHalves) {
    VF second[kRows][kVectors];
    Clear(second);
    for (int e = 0; e < octets - half; ++e) {
      Octet(weights, e, first_vector, x, x_stride, first);
      prefetcher.PrefetchOctet<Weights>(e);
      Octet(weights, half + e, first_vector, x, x_stride, second);
      prefetcher.PrefetchOctet<Weights>(half + e);
    }
    if (octets % 2 == 1) {
      Octet(weights, half - 1, first_vector, x, x_stride, first);
      prefetcher.PrefetchOctet<Weights>(half - 1);
    }
    AddToTotals(first, first_vector, scales, totals);
    AddToTotals(second, first_vector, scales, totals);
  } else {
    for (int e = 0; e < half; ++e) {
      Octet(weights, e, first_vector, x, x_stride, first);
      prefetcher.PrefetchOctet<Weights>(e);
    }
    AddToTotals(first, first_vector, scales, totals);
    Clear(first);
    for (int e = half; e < octets; ++e) {
      Octet(weights, e, first_vector, x, x_stride, first);
      prefetcher.PrefetchOctet<Weights>(e);
    }
    AddToTotals(first, first_vector, scales, totals);
  }
}

template <class Weights, int kRows>
HWY_INLINE void AddGroupOfPanel(const Weights& weights, int octets, const uint32_t* x, int64_t x_stride,
                                const Prefetcher& prefetcher, const float* scales, float* totals) {
  for (int v = 0; v < kPanelVectors; v += kBlockVectors) {
    AddGroup<Weights, kRows, kBlockVectors>(weights, octets, v, x, x_stride,
                                            v == 0 ? prefetcher : Prefetcher(), scales, totals);
  }
}

template <class Weights>
HWY_INLINE void AddGroupOfRows(const Weights& weights, int octets, const uint32_t* x, int64_t n,
                               Prefetcher prefetcher, const float* scales, float* totals) {
  const int64_t stride = int64_t{octets} * Weights::Arithmetic::kSteps;
  for (; n >= kBlockRows; n -= kBlockRows) {
    AddGroupOfPanel<Weights, kBlockRows>(weights, octets, x, stride, prefetcher, scales, totals);
    prefetcher = Prefetcher();
    x += kBlockRows * stride;
    totals += kBlockRows * kPanelOutputs;
  }
  switch (n) {
    case 5:
      return AddGroupOfPanel<Weights, 5>(weights, octets, x, stride, prefetcher, scales, totals);
    case 4:
      return AddGroupOfPanel<Weights, 4>(weights, octets, x, stride, prefetcher, scales, totals);
    case 3:
      return AddGroupOfPanel<Weights, 3>(weights, octets, x, stride, prefetcher, scales, totals);
    case 2:
      return AddGroupOfPanel<Weights, 2>(weights, octets, x, stride, prefetcher, scales, totals);
    case 1:
      return AddGroupOfPanel<Weights, 1>(weights, octets, x, stride, prefetcher, scales, totals);
    default:
      return;
  }
}

// An octet's values (or pairs) of one vector of outputs, to their places in the group's
// tile, which is in the order of FloatWeights.
template <class Weights>
HWY_INLINE void DecodeOctet(const Weights& weights, int octet, int v, float* tile) {
  const F f;
  constexpr int kSteps = Weights::Arithmetic::kSteps;
  float* first = tile + octet * kSteps * kPanelOutputs + v * kLanes;
  hn::Store(hn::BitCast(f, weights.template Get<0>(octet, v)), f, first);
  hn::Store(hn::BitCast(f, weights.template Get<1>(octet, v)), f, first + 1 * kPanelOutputs);
  hn::Store(hn::BitCast(f, weights.template Get<2>(octet, v)), f, first + 2 * kPanelOutputs);
  hn::Store(hn::BitCast(f, weights.template Get<3>(octet, v)), f, first + 3 * kPanelOutputs);
  if constexpr (kSteps == 8) {
    hn::Store(hn::BitCast(f, weights.template Get<4>(octet, v)), f, first + 4 * kPanelOutputs);
    hn::Store(hn::BitCast(f, weights.template Get<5>(octet, v)), f, first + 5 * kPanelOutputs);
    hn::Store(hn::BitCast(f, weights.template Get<6>(octet, v)), f, first + 6 * kPanelOutputs);
    hn::Store(hn::BitCast(f, weights.template Get<7>(octet, v)), f, first + 7 * kPanelOutputs);
  }
}

template <class Weights>
HWY_INLINE void DecodeTile(const Weights& weights, int octets, const Prefetcher& prefetcher, float* tile) {
  for (int e = 0; e < octets; ++e) {
    for (int v = 0; v < kPanelVectors; ++v) DecodeOctet(weights, e, v, tile);
    prefetcher.PrefetchOctet<Weights>(e);
  }
}

// The sizes of a matrix's groups, and where in one the scales are.
struct Groups {
  const int octets;
  const int64_t bytes;
  const int64_t scales_at;  // `bytes` when there are none
  HWY_INLINE explicit Groups(const PackedMatrix& w)
      : octets(w.group / 8),
        bytes(w.group_bytes()),
        scales_at(bytes - (InfoOf(w.format).scaled ? kScaleBytes : 0)) {}
  HWY_INLINE const float* Scales(const uint8_t* group) const {
    return scales_at < bytes ? reinterpret_cast<const float*>(group + scales_at) : nullptr;
  }
};

// What the first steps need, which nothing has asked for.
HWY_INLINE void PrefetchBeginning(const PackedMatrix& w, int64_t begin, int64_t end) {
  constexpr int64_t kMost = 12 << 10;
  const uint8_t* start = w.data.data() + begin * w.panel_bytes();
  for (int64_t line = 0; line < HWY_MIN(kMost, (end - begin) * w.panel_bytes()); line += 64) {
    hwy::Prefetch(start + line);
  }
}

// The panel's columns of rows of y, from the first of them on, from totals [rows][kPanelOutputs].
HWY_INLINE void StoreOutputs(const float* totals, int64_t rows, int64_t panel, int64_t first_row,
                             const Outputs& y) {
  const int64_t begin = HWY_MAX(y.range.begin, panel * kPanelOutputs);
  const int64_t count = HWY_MIN(y.range.end, (panel + 1) * kPanelOutputs) - begin;
  totals += begin % kPanelOutputs;
  for (int64_t r = 0; r < rows; ++r) {
    float* out = y.values + (first_row + r) * y.range.count() + begin - y.range.begin;
    // The analyzer takes rows for more than 0, and rows * 64 for none.
    // NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign)
    for (int64_t o = 0; o < count; ++o) out[o] = totals[r * kPanelOutputs + o];
  }
}

// Adds a decoded group's products to the totals [n][kPanelOutputs]. Compiled in one file, that
// of the format which needs no decoding, for every format that is decoded to it: fp32 in
// multiply_f32.cc, bf16 pairs (pairs-inl.h) in multiply_bf16.cc.
void AddRowsOfTile(const FloatWeights& tile, int octets, const uint32_t* x, int64_t n, const float* scales,
                   float* totals);

// Panels [begin, end) of y = x w^T; x as PackOperands lays it out. Weights
// is the matrix's format, Tile how a decoded group is read (Weights itself when it
// needs no decoding).
template <class Weights, class Tile>
HWY_ATTR void MultiplyPanelsOf(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin,
                               int64_t end, const Outputs& y) {
  constexpr int64_t kRowsPerBlock = Tile::kRowsPerBlock;
  constexpr bool kDecodes = !std::is_same_v<Weights, Tile>;
  HWY_ALIGN float tile[kMaxGroup * kPanelOutputs];
  HWY_ALIGN float totals[kRowsPerBlock * kPanelOutputs];
  const typename Weights::Table table(w.code.data());
  const Groups groups(w);
  const int64_t row_stride = int64_t{groups.octets} * Weights::Arithmetic::kSteps;
  const bool whole_group = PrefetchesWholeGroup();
  PrefetchBeginning(w, begin, end);
  for (int64_t panel = begin; panel < end; ++panel) {
    for (int64_t first = 0; first < n; first += kRowsPerBlock) {
      const int64_t rows = HWY_MIN(kRowsPerBlock, n - first);
      for (int64_t i = 0; i < rows * kPanelOutputs; ++i) totals[i] = 0;
      const uint8_t* group = w.data.data() + panel * w.panel_bytes() + y.begin_group * groups.bytes;
      for (int64_t g = 0; g < y.end_group - y.begin_group; ++g, group += groups.bytes) {
        const uint32_t* operands = x + (g * n + first) * row_stride;
        const float* scales = groups.Scales(group);
        const Weights weights(group, table);
        const Prefetcher prefetcher(group, groups.bytes, whole_group);
        for (int64_t at = groups.scales_at; at < groups.bytes; at += 64) prefetcher.PrefetchLine(at / 64);
        if constexpr (kDecodes) {
          if (rows > Tile::kDirectRows) {
            DecodeTile(weights, groups.octets, prefetcher, tile);
            const Tile decoded(reinterpret_cast<const uint8_t*>(tile), NoTable(nullptr));
            AddRowsOfTile(decoded, groups.octets, operands, rows, scales, totals);
            continue;
          }
        }
        AddGroupOfRows(weights, groups.octets, operands, rows, prefetcher, scales, totals);
      }
      StoreOutputs(totals, rows, panel, first, y);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
