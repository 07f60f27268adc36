// The inner loops of matrix.h's Multiply, compiled once for each instruction set:
// included by multiply.cc inside Highway's foreach_target, hence without the usual
// guard. A product is put together from two parts:
//   Arithmetic  what one step multiplies: fp32 values, or pairs of bf16
//   Weights     where a step's weights come from: a format, or a decoded tile
// Vectors hold neighbouring outputs; see matrix.h for the layout and the order of
// additions.

#if defined(SERVICES_MODEL_ENGINE_KERNELS_MULTIPLY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_MODEL_ENGINE_KERNELS_MULTIPLY_INL_H_
#undef SERVICES_MODEL_ENGINE_KERNELS_MULTIPLY_INL_H_
#else
#define SERVICES_MODEL_ENGINE_KERNELS_MULTIPLY_INL_H_
#endif

#include <cstdint>
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "services/model/engine/kernels/matrix.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a panel is a whole number of vectors everywhere.
using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using I = hn::RebindToSigned<F>;
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(F()));
constexpr int kPanelVectors = kPanelOutputs / kLanes;

// A block of accumulators that the registers hold: rows x vectors of outputs.
// 32 registers: 24 accumulators, 4 vectors of weights, the table. 16: 12 and 2.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
constexpr int kBlockVectors = 2;
#else
constexpr int kBlockVectors = 4;
#endif
constexpr int kBlockRows = 6;
// How the rows of x are taken. kRowsAtATime: for so many, a group is decoded once;
// kDirectRows: up to so many, its weights are decoded in registers instead.
struct ByRows {
  static constexpr int64_t kRowsAtATime = 128;
  static constexpr int kDirectRows = 4;
};

// Which of NEON's names Highway gives it (with or without AES, say) does not matter
// here; SVE is not compiled (see CMakeLists.txt).
#undef KERNELS_HAVE_BYTE_TABLES
#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
#define KERNELS_HAVE_BYTE_TABLES 1
#else
#define KERNELS_HAVE_BYTE_TABLES 0
#endif

// The values of 4-bit indices in the low bits of each lane.
class CodeTable {
 public:
  HWY_INLINE explicit CodeTable(const float* code) {
#if KERNELS_HAVE_BYTE_TABLES
    const auto* bytes = reinterpret_cast<const uint8_t*>(code);
    for (int i = 0; i < 4; ++i) table_.val[i] = vld1q_u8(bytes + 16 * i);
#elif HWY_MAX_BYTES >= 32
    for (int i = 0; i < 16 / kLanes; ++i) table_[i] = hn::LoadU(F(), code + i * kLanes);
#else
    code_ = code;
#endif
  }

  HWY_INLINE VF operator()(VU index) const {
    const F f;
    const U u;
#if KERNELS_HAVE_BYTE_TABLES
    // Each lane's four bytes from a table of 64.
    const VU four = hn::And(hn::ShiftLeft<2>(index), hn::Set(u, 0x3c));
    const VU byte = hn::Add(hn::Mul(four, hn::Set(u, 0x01010101u)), hn::Set(u, 0x03020100u));
    const hn::Repartition<uint8_t, U> bytes;
    return hn::BitCast(f, hn::VFromD<decltype(bytes)>(vqtbl4q_u8(table_, hn::BitCast(bytes, byte).raw)));
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
    return VF{_mm512_permutexvar_ps(index.raw, table_[0].raw)};  // reads four bits of each lane
#elif HWY_ARCH_X86 && HWY_TARGET == HWY_AVX2
    // The low three bits choose within a half, the fourth (moved to the sign) the half.
    const VF low{_mm256_permutevar8x32_ps(table_[0].raw, index.raw)};
    const VF high{_mm256_permutevar8x32_ps(table_[1].raw, index.raw)};
    return VF{_mm256_blendv_ps(low.raw, high.raw, hn::BitCast(f, hn::ShiftLeft<28>(index)).raw)};
#else
    HWY_ALIGN uint32_t lanes[kLanes];
    HWY_ALIGN float values[kLanes];
    hn::Store(hn::And(index, hn::Set(u, 15)), u, lanes);
    for (int i = 0; i < kLanes; ++i) values[i] = code_[lanes[i]];
    return hn::Load(f, values);
#endif
  }

 private:
#if KERNELS_HAVE_BYTE_TABLES
  uint8x16x4_t table_;
#elif HWY_MAX_BYTES >= 32
  VF table_[16 / kLanes];
#else
  const float* code_;
#endif
};

struct NoTable {
  HWY_INLINE explicit NoTable(const float*) {}
};

// fp32: a step is one inner index.
struct FloatArithmetic {
  using Vector = VF;
  static constexpr int kSteps = 8;  // in 8 inner indices
  static HWY_INLINE VF MultiplyAdd(uint32_t x, VF w, VF sum) {
    return hn::MulAdd(hn::BitCast(F(), hn::Set(U(), x)), w, sum);
  }
};

// Weights give step `kStep` of the 8 inner indices from 8 * eighth on, for the
// panel's v-th vector of outputs. 16 outputs' eighth fills kLinesOfAnEighth cache lines.
struct FloatWeights : ByRows {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesOfAnEighth = 8;
  const uint8_t* data;
  HWY_INLINE FloatWeights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int eighth, int v) const {
    const auto* values = reinterpret_cast<const float*>(data);
    return hn::Load(F(), values + (8 * eighth + kStep) * kPanelOutputs + v * kLanes);
  }
};

struct BFloat16Weights {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesOfAnEighth = 4;
  const uint8_t* data;
  HWY_INLINE BFloat16Weights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int eighth, int v) const {
    const auto* pairs = reinterpret_cast<const uint32_t*>(data);
    const VU pair = hn::Load(U(), pairs + (4 * eighth + kStep / 2) * kPanelOutputs + v * kLanes);
    return hn::BitCast(F(),
                       kStep % 2 == 0 ? hn::ShiftLeft<16>(pair) : hn::And(pair, hn::Set(U(), 0xffff0000u)));
  }
};

template <int kByte>
HWY_INLINE VF SignedByte(VU bytes) {
  const hn::Vec<I> top = hn::BitCast(I(), hn::ShiftLeft<24 - 8 * kByte>(bytes));
  return hn::ConvertTo(F(), hn::ShiftRight<24>(top));
}

struct Int8Weights {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesOfAnEighth = 2;
  const uint8_t* data;
  HWY_INLINE Int8Weights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int eighth, int v) const {
    const auto* fours = reinterpret_cast<const uint32_t*>(data);
    return SignedByte<kStep % 4>(
        hn::Load(U(), fours + (2 * eighth + kStep / 4) * kPanelOutputs + v * kLanes));
  }
};

// Of an output's eight indices, the even ones lie in the low half of its 32 bits,
// the odd ones in the high half (so that bf16 pairs are four shifts away).
struct Nf4Weights {
  using Arithmetic = FloatArithmetic;
  using Table = CodeTable;
  static constexpr int kLinesOfAnEighth = 1;
  const uint8_t* data;
  const CodeTable& table;
  HWY_INLINE Nf4Weights(const uint8_t* group, const CodeTable& code) : data(group), table(code) {}
  template <int kStep>
  HWY_INLINE VF Get(int eighth, int v) const {
    constexpr int kShift = 4 * (kStep / 2) + 16 * (kStep % 2);
    const uint8_t* eights = data + (eighth * kPanelOutputs + v * kLanes) * 4;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
    // The unit that shifts is busy with multiplying, the one that loads is not.
    const VU indices = hn::LoadU(U(), reinterpret_cast<const uint32_t*>(eights + kShift / 8));
    return table(hn::ShiftRight<kShift % 8>(indices));
#else
    return table(hn::ShiftRight<kShift>(hn::Load(U(), reinterpret_cast<const uint32_t*>(eights))));
#endif
  }
};

// Asks the memory for what will be multiplied some time after a group, line by line while the
// group is multiplied: first for the second-level cache, then for the first-level one. All
// of a group's lines at once would fill the core's queue of requests, and its loads would
// wait (a third of the bandwidth of two cores, measured on Emerald Rapids).
class Ahead {
 public:
  Ahead() = default;  // asks for nothing
  HWY_INLINE explicit Ahead(const uint8_t* group) : Ahead(group, kNear, kFar) {}
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
        const Ahead ahead(group);
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
