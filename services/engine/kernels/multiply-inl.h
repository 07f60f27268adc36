// The inner loops of matrix.h's Multiply, compiled once for each instruction set:
// included by multiply.cc inside Highway's foreach_target, hence without the usual
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
#include "services/engine/kernels/formats-inl.h"
#include "services/engine/kernels/matrix.h"

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
HWY_INLINE bool AsksAtOnce() {
#if HWY_ARCH_X86
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

// Asks line by line while the group is multiplied: first for the second-level cache, then
// for the first-level one.
class Ahead {
 public:
  Ahead() = default;  // asks for nothing more
  // Of `bytes` bytes a group.
  HWY_INLINE Ahead(const uint8_t* group, int64_t bytes, bool at_once) {
    if (at_once) {
      for (int64_t line = 0; line < bytes; line += 64) hwy::Prefetch(group + kAtOnce + line);
    } else {
      *this = Ahead(group, kNear, kFar);
    }
  }
  HWY_INLINE Ahead(const uint8_t* group, int64_t near, int64_t far)
      : near_(group + near), near_to_far_(far - near) {}

  HWY_INLINE void Ask(int64_t line) const {
    if (near_ == nullptr) return;
    __builtin_prefetch(near_ + 64 * line + near_to_far_, 0, 2);
    __builtin_prefetch(near_ + 64 * line, 0, 3);
  }
  // An eighth of a panel.
  template <class Weights>
  HWY_INLINE void AskEighth(int eighth) const {
    constexpr int kLines = Weights::kLinesOfAnEighth * (kPanelOutputs / 16);
    for (int i = 0; i < kLines; ++i) Ask(int64_t{eighth} * kLines + i);
  }

 private:
  // Twice as far costs Zen 5 two to four hundredths.
  static constexpr int64_t kAtOnce = 6 << 10;
  static constexpr int64_t kNear = 4608, kFar = 18 << 10;
  const uint8_t* near_ = nullptr;
  int64_t near_to_far_ = 0;
};

template <class Weights, int kStep, int kRows, int kVectors>
HWY_INLINE void Step(const Weights& weights, int eighth, int first_vector, const uint32_t* x,
                     int64_t x_stride, VF (&sums)[kRows][kVectors]) {
  using A = typename Weights::Arithmetic;
  typename A::Vector w[kVectors];
  for (int v = 0; v < kVectors; ++v) w[v] = weights.template Get<kStep>(eighth, first_vector + v);
  for (int r = 0; r < kRows; ++r) {
    const uint32_t value = x[r * x_stride + eighth * A::kSteps + kStep];
    for (int v = 0; v < kVectors; ++v) sums[r][v] = A::MultiplyAdd(value, w[v], sums[r][v]);
  }
}

template <class Weights, int kRows, int kVectors>
HWY_INLINE void Eighth(const Weights& weights, int eighth, int first_vector, const uint32_t* x,
                       int64_t x_stride, VF (&sums)[kRows][kVectors]) {
  Step<Weights, 0>(weights, eighth, first_vector, x, x_stride, sums);
  Step<Weights, 1>(weights, eighth, first_vector, x, x_stride, sums);
  Step<Weights, 2>(weights, eighth, first_vector, x, x_stride, sums);
  Step<Weights, 3>(weights, eighth, first_vector, x, x_stride, sums);
  if constexpr (Weights::Arithmetic::kSteps == 8) {
    Step<Weights, 4>(weights, eighth, first_vector, x, x_stride, sums);
    Step<Weights, 5>(weights, eighth, first_vector, x, x_stride, sums);
    Step<Weights, 6>(weights, eighth, first_vector, x, x_stride, sums);
    Step<Weights, 7>(weights, eighth, first_vector, x, x_stride, sums);
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
HWY_INLINE void AddGroup(const Weights& weights, int eighths, int first_vector, const uint32_t* x,
                         int64_t x_stride, const Ahead& ahead, const float* scales, float* totals) {
  constexpr bool kBothHalves = 2 * kRows <= kBlockRows;
  const int half = (eighths + 1) / 2;
  VF first[kRows][kVectors];
  Clear(first);
  if constexpr (kBothHalves) {
    VF second[kRows][kVectors];
    Clear(second);
    for (int e = 0; e < eighths - half; ++e) {
      Eighth(weights, e, first_vector, x, x_stride, first);
      ahead.AskEighth<Weights>(e);
      Eighth(weights, half + e, first_vector, x, x_stride, second);
      ahead.AskEighth<Weights>(half + e);
    }
    if (eighths % 2 == 1) {
      Eighth(weights, half - 1, first_vector, x, x_stride, first);
      ahead.AskEighth<Weights>(half - 1);
    }
    AddToTotals(first, first_vector, scales, totals);
    AddToTotals(second, first_vector, scales, totals);
  } else {
    for (int e = 0; e < half; ++e) {
      Eighth(weights, e, first_vector, x, x_stride, first);
      ahead.AskEighth<Weights>(e);
    }
    AddToTotals(first, first_vector, scales, totals);
    Clear(first);
    for (int e = half; e < eighths; ++e) {
      Eighth(weights, e, first_vector, x, x_stride, first);
      ahead.AskEighth<Weights>(e);
    }
    AddToTotals(first, first_vector, scales, totals);
  }
}

template <class Weights, int kRows>
HWY_INLINE void AddGroupOfPanel(const Weights& weights, int eighths, const uint32_t* x, int64_t x_stride,
                                const Ahead& ahead, const float* scales, float* totals) {
  for (int v = 0; v < kPanelVectors; v += kBlockVectors) {
    AddGroup<Weights, kRows, kBlockVectors>(weights, eighths, v, x, x_stride, v == 0 ? ahead : Ahead(),
                                            scales, totals);
  }
}

template <class Weights>
HWY_INLINE void AddGroupOfRows(const Weights& weights, int eighths, const uint32_t* x, int64_t n, Ahead ahead,
                               const float* scales, float* totals) {
  const int64_t stride = int64_t{eighths} * Weights::Arithmetic::kSteps;
  for (; n >= kBlockRows; n -= kBlockRows) {
    AddGroupOfPanel<Weights, kBlockRows>(weights, eighths, x, stride, ahead, scales, totals);
    ahead = Ahead();
    x += kBlockRows * stride;
    totals += kBlockRows * kPanelOutputs;
  }
  switch (n) {
    case 5:
      return AddGroupOfPanel<Weights, 5>(weights, eighths, x, stride, ahead, scales, totals);
    case 4:
      return AddGroupOfPanel<Weights, 4>(weights, eighths, x, stride, ahead, scales, totals);
    case 3:
      return AddGroupOfPanel<Weights, 3>(weights, eighths, x, stride, ahead, scales, totals);
    case 2:
      return AddGroupOfPanel<Weights, 2>(weights, eighths, x, stride, ahead, scales, totals);
    case 1:
      return AddGroupOfPanel<Weights, 1>(weights, eighths, x, stride, ahead, scales, totals);
    default:
      return;
  }
}

// An eighth's values (or pairs) of one vector of outputs, to their places in the group's
// tile, which is in the order of FloatWeights.
template <class Weights>
HWY_INLINE void DecodeEighth(const Weights& weights, int eighth, int v, float* tile) {
  const F f;
  constexpr int kSteps = Weights::Arithmetic::kSteps;
  float* first = tile + eighth * kSteps * kPanelOutputs + v * kLanes;
  hn::Store(hn::BitCast(f, weights.template Get<0>(eighth, v)), f, first);
  hn::Store(hn::BitCast(f, weights.template Get<1>(eighth, v)), f, first + 1 * kPanelOutputs);
  hn::Store(hn::BitCast(f, weights.template Get<2>(eighth, v)), f, first + 2 * kPanelOutputs);
  hn::Store(hn::BitCast(f, weights.template Get<3>(eighth, v)), f, first + 3 * kPanelOutputs);
  if constexpr (kSteps == 8) {
    hn::Store(hn::BitCast(f, weights.template Get<4>(eighth, v)), f, first + 4 * kPanelOutputs);
    hn::Store(hn::BitCast(f, weights.template Get<5>(eighth, v)), f, first + 5 * kPanelOutputs);
    hn::Store(hn::BitCast(f, weights.template Get<6>(eighth, v)), f, first + 6 * kPanelOutputs);
    hn::Store(hn::BitCast(f, weights.template Get<7>(eighth, v)), f, first + 7 * kPanelOutputs);
  }
}

template <class Weights>
HWY_INLINE void DecodeTile(const Weights& weights, int eighths, const Ahead& ahead, float* tile) {
  for (int e = 0; e < eighths; ++e) {
    for (int v = 0; v < kPanelVectors; ++v) DecodeEighth(weights, e, v, tile);
    ahead.AskEighth<Weights>(e);
  }
}

// The sizes of a matrix's groups, and where in one the scales are.
struct Groups {
  const int eighths;
  const int64_t bytes;
  const int64_t scales_at;  // `bytes` when there are none
  HWY_INLINE explicit Groups(const PackedMatrix& w)
      : eighths(w.group / 8), bytes(w.group_bytes()), scales_at(bytes - (Scaled(w) ? kScaleBytes : 0)) {}
  HWY_INLINE const float* Scales(const uint8_t* group) const {
    return scales_at < bytes ? reinterpret_cast<const float*>(group + scales_at) : nullptr;
  }

 private:
  static constexpr int64_t kScaleBytes = kPanelOutputs * sizeof(float);
  static HWY_INLINE bool Scaled(const PackedMatrix& w) {
    return w.format == WeightFormat::kInt8 || w.format == WeightFormat::kNf4;
  }
};

// What the first steps need, which nothing has asked for.
HWY_INLINE void AskForBeginning(const PackedMatrix& w, int64_t begin, int64_t end) {
  constexpr int64_t kMost = 12 << 10;
  const uint8_t* start = w.data.data() + begin * w.panel_bytes();
  for (int64_t line = 0; line < HWY_MIN(kMost, (end - begin) * w.panel_bytes()); line += 64) {
    hwy::Prefetch(start + line);
  }
}

// The panel's columns of y [rows, out] from totals [rows][kPanelOutputs].
HWY_INLINE void StoreOutputs(const float* totals, int64_t rows, const PackedMatrix& w, int64_t panel,
                             float* y) {
  const int64_t outputs = HWY_MIN(int64_t{kPanelOutputs}, w.out - panel * kPanelOutputs);
  for (int64_t r = 0; r < rows; ++r) {
    float* out = y + r * w.out + panel * kPanelOutputs;
    for (int64_t o = 0; o < outputs; ++o) out[o] = totals[r * kPanelOutputs + o];
  }
}

// Panels [begin, end) of y[n, out] = x w^T; x as PackOperands lays it out. Weights
// is the matrix's format, Tile how a decoded group is read (Weights itself when it
// needs no decoding).
template <class Weights, class Tile>
HWY_INLINE void MultiplyPanelsOf(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin,
                                 int64_t end, float* y) {
  constexpr int64_t kRowsAtATime = Tile::kRowsAtATime;
  constexpr bool kDecodes = !std::is_same_v<Weights, Tile>;
  HWY_ALIGN float tile[kMaxGroup * kPanelOutputs];
  HWY_ALIGN float totals[kRowsAtATime * kPanelOutputs];
  const typename Weights::Table table(w.code.data());
  const NoTable no_table(nullptr);
  const Groups groups(w);
  const int64_t row_stride = int64_t{groups.eighths} * Weights::Arithmetic::kSteps;
  const bool at_once = AsksAtOnce();
  AskForBeginning(w, begin, end);
  for (int64_t panel = begin; panel < end; ++panel) {
    for (int64_t first = 0; first < n; first += kRowsAtATime) {
      const int64_t rows = HWY_MIN(kRowsAtATime, n - first);
      for (int64_t i = 0; i < rows * kPanelOutputs; ++i) totals[i] = 0;
      const uint8_t* group = w.data.data() + panel * w.panel_bytes();
      for (int64_t g = 0; g < w.groups(); ++g, group += groups.bytes) {
        const uint32_t* operands = x + (g * n + first) * row_stride;
        const float* scales = groups.Scales(group);
        const Weights weights(group, table);
        const Ahead ahead(group, groups.bytes, at_once);
        for (int64_t at = groups.scales_at; at < groups.bytes; at += 64) ahead.Ask(at / 64);
        if constexpr (kDecodes) {
          if (rows > Tile::kDirectRows) {
            DecodeTile(weights, groups.eighths, ahead, tile);
            const Tile decoded(reinterpret_cast<const uint8_t*>(tile), no_table);
            AddGroupOfRows(decoded, groups.eighths, operands, rows, Ahead(), scales, totals);
            continue;
          }
        }
        AddGroupOfRows(weights, groups.eighths, operands, rows, ahead, scales, totals);
      }
      StoreOutputs(totals, rows, w, panel, y + first * w.out);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
