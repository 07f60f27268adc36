#include "services/engine/kernels/multiply_transposed.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "services/engine/kernels/operands.h"
#include "services/engine/kernels/weight_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/multiply_transposed.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/engine/kernels/multiply-inl.h"
#include "services/engine/kernels/rounding-inl.h"
#include "services/engine/kernels/tiles-inl.h"
#include "services/engine/kernels/transpose-inl.h"
// clang-format on

#ifndef SERVICES_ENGINE_KERNELS_MULTIPLY_TRANSPOSED_CC_
#define SERVICES_ENGINE_KERNELS_MULTIPLY_TRANSPOSED_CC_
namespace mechinterp::engine::kernels {
namespace {

constexpr int64_t kRowsPerBlock = 128;  // for so many, a group is decoded once

// A product's block of rows as the inner loops read it.
struct Block {
  const PackedMatrix* w;
  DecodeTransposed* decode;
  BFloat16Unit unit;
  int64_t begin, end;        // panels
  int64_t rows;              // at most kRowsPerBlock
  const uint32_t* operands;  // [panels][rows][64] of fp32 or [32] of pairs; of scaled formats dy itself
  const float* factors;      // of each row's sums; null: none
  bool adds;                 // to what dx holds

  // Of one row and panel.
  int64_t row_words() const {
    const bool in_pairs = unit != BFloat16Unit::kNone && !InfoOf(w->format).scaled;
    return in_pairs ? kPanelOutputs / 2 : kPanelOutputs;
  }
};

}  // namespace
}  // namespace mechinterp::engine::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR

void TransposeValues(const float* group, float* columns) {
  for (int i = 0; i < kMaxGroup * kPanelOutputs; ++i) {
    columns[i] = group[i % kMaxGroup * kPanelOutputs + i / kMaxGroup];
  }
}

#else

// Values [4][4] of each 128-bit block of four vectors, transposed in their blocks.
HWY_INLINE void TransposeInBlocks(VF (&x)[4]) {
  const F f;
  const hn::Repartition<uint64_t, F> pieces;
  const auto low01 = hn::BitCast(pieces, hn::InterleaveLower(f, x[0], x[1]));
  const auto high01 = hn::BitCast(pieces, hn::InterleaveUpper(f, x[0], x[1]));
  const auto low23 = hn::BitCast(pieces, hn::InterleaveLower(f, x[2], x[3]));
  const auto high23 = hn::BitCast(pieces, hn::InterleaveUpper(f, x[2], x[3]));
  x[0] = hn::BitCast(f, hn::InterleaveLower(pieces, low01, low23));
  x[1] = hn::BitCast(f, hn::InterleaveUpper(pieces, low01, low23));
  x[2] = hn::BitCast(f, hn::InterleaveLower(pieces, high01, high23));
  x[3] = hn::BitCast(f, hn::InterleaveUpper(pieces, high01, high23));
}

// Four values each of every fourth row from the first on, a block for each.
HWY_INLINE VF LoadBlocks(const float* row) {
  const F f;
#if HWY_MAX_BYTES >= 64
  const VF low = hn::OddEvenBlocks(hn::LoadDup128(f, row + 4 * kPanelOutputs), hn::LoadDup128(f, row));
  row += 8 * kPanelOutputs;
  const VF high = hn::OddEvenBlocks(hn::LoadDup128(f, row + 4 * kPanelOutputs), hn::LoadDup128(f, row));
  return hn::ConcatUpperLower(f, high, low);
#elif HWY_MAX_BYTES >= 32
  return hn::ConcatUpperLower(f, hn::LoadDup128(f, row + 4 * kPanelOutputs), hn::LoadDup128(f, row));
#else
  return hn::Load(f, row);
#endif
}

void TransposeValues(const float* group, float* columns) {
  for (int inner = 0; inner < kMaxGroup; inner += kLanes) {
    for (int output = 0; output < kPanelOutputs; output += 4) {
      VF x[4];
      for (int i = 0; i < 4; ++i) x[i] = LoadBlocks(group + (inner + i) * kPanelOutputs + output);
      TransposeInBlocks(x);
      for (int i = 0; i < 4; ++i) hn::Store(x[i], F(), columns + (output + i) * kMaxGroup + inner);
    }
  }
}

#endif

// [rows][64] of dy, times the outputs' scales if there are any, through a function.
template <class Round>
HWY_INLINE void RoundRows(const float* dy, int64_t rows, const float* scales, const Round& round,
                          uint32_t* out) {
  const F f;
  for (int64_t i = 0; i < kPanelOutputs; i += kLanes) {
    const VF scale = scales != nullptr ? hn::Load(f, scales + i) : hn::Set(f, 1.0f);
    for (int64_t at = i; at < rows * kPanelOutputs; at += kPanelOutputs) {
      hn::Store(hn::BitCast(U(), round(hn::Mul(hn::Load(f, dy + at), scale))), U(), out + at);
    }
  }
}

#if KERNELS_HAVE_BFLOAT16_PAIRS

// The same to pairs: [rows][32].
HWY_INLINE void RoundRowsToPairs(const float* dy, int64_t rows, const float* scales, uint32_t* out) {
  const F f;
  VF scale[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) {
    scale[v] = scales != nullptr ? hn::Load(f, scales + v * kLanes) : hn::Set(f, 1.0f);
  }
  for (int64_t r = 0; r < rows; ++r, dy += kPanelOutputs) {
    for (int v = 0; v < kPanelVectors; v += 2, out += kLanes) {
      const VF low = hn::Mul(hn::Load(f, dy + v * kLanes), scale[v]);
      const VF high = hn::Mul(hn::Load(f, dy + (v + 1) * kLanes), scale[v + 1]);
      hn::Store(RoundToPairs(low, high), U(), out);
    }
  }
}

#endif

HWY_ATTR void RoundOperands(const float* dy, int64_t rows, const float* scales, NumberFormat compute,
                            BFloat16Unit unit, uint32_t* out) {
#if KERNELS_HAVE_BFLOAT16_PAIRS
  if (unit != BFloat16Unit::kNone) return RoundRowsToPairs(dy, rows, scales, out);
#else
  (void)unit;
#endif
  switch (compute) {
    case NumberFormat::kBFloat16:
      return RoundRows(
          dy, rows, scales, [](VF x) HWY_ATTR { return RoundToBFloat16(x); }, out);
    case NumberFormat::kFloat16:
      return RoundRows(
          dy, rows, scales, [](VF x) HWY_ATTR { return RoundToFloat16(x); }, out);
    default:
      return RoundRows(
          dy, rows, scales, [](VF x) HWY_ATTR { return x; }, out);
  }
}

// totals [rows][64] += operands times a decoded tile.
HWY_INLINE void AddRowsOfTransposed(const float* tile, BFloat16Unit unit, const uint32_t* operands,
                                    int64_t rows, float* totals) {
  constexpr int kOctets = kPanelOutputs / 8;
  const auto* bytes = reinterpret_cast<const uint8_t*>(tile);
#if KERNELS_HAVE_BFLOAT16_PAIRS
  if (unit == BFloat16Unit::kTiles) {
    const TileOperands both{reinterpret_cast<const uint32_t*>(tile), true, operands, kPanelOutputs / 2};
    return AddManyRows(both, rows, nullptr, totals);
  }
  if (unit == BFloat16Unit::kPairs) {
    return AddRowsOfTile(PairWeights(bytes, NoTable(nullptr)), kOctets, operands, rows, nullptr, totals);
  }
#else
  (void)unit;
#endif
  AddRowsOfTile(FloatWeights(bytes, NoTable(nullptr)), kOctets, operands, rows, nullptr, totals);
}

// Gives a row's 64 sums in the order of inner indices, from that of the columns.
class ColumnOrder {
 public:
#if KERNELS_HAVE_BFLOAT16_PAIRS
  // Two neighbours are so in both orders, a piece.
  HWY_INLINE explicit ColumnOrder(const Block& block) : in_pairs_(block.unit != BFloat16Unit::kNone) {
    if (!in_pairs_) return;
    HWY_ALIGN int64_t pieces[kMaxGroup / 2];
    const int values = 32 / InfoOf(block.w->format).bits;
    for (int i = 0; i < kMaxGroup / 2; ++i) pieces[i] = ColumnOfPair(2 * i, values) / 2;
    for (int v = 0; v < kPanelVectors; ++v) pieces_[v] = _mm512_load_si512(pieces + 8 * v);
  }
  HWY_INLINE const float* operator()(const float* columns, float* ordered) const {
    if (!in_pairs_) return columns;
    static_assert(kPanelVectors == 4);
    __m512d x[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) x[v] = _mm512_castps_pd(_mm512_load_ps(columns + v * kLanes));
    for (int v = 0; v < kPanelVectors; ++v) {
      const __m512d first = _mm512_permutex2var_pd(x[0], pieces_[v], x[1]);
      const __m512d last = _mm512_permutex2var_pd(x[2], pieces_[v], x[3]);
      const __mmask8 is_last = _mm512_test_epi64_mask(pieces_[v], _mm512_set1_epi64(16));
      _mm512_store_ps(ordered + v * kLanes, _mm512_castpd_ps(_mm512_mask_blend_pd(is_last, first, last)));
    }
    return ordered;
  }

 private:
  bool in_pairs_;
  __m512i pieces_[kPanelVectors] = {};
#else
  HWY_INLINE explicit ColumnOrder(const Block&) {}
  HWY_INLINE const float* operator()(const float* columns, float*) const { return columns; }
#endif
};

// The inner indices of one group: dx [rows, in] from totals [rows][64 columns].
HWY_INLINE void StoreColumns(const Block& block, const ColumnOrder& order, const float* totals, int64_t group,
                             float* dx) {
  const PackedMatrix& w = *block.w;
  const int64_t first = group * w.group, count = HWY_MIN(int64_t{w.group}, w.in - first);
  for (int64_t r = 0; r < block.rows; ++r, totals += kMaxGroup) {
    HWY_ALIGN float ordered[kMaxGroup];
    const float* sums = order(totals, ordered);
    const float factor = block.factors != nullptr ? block.factors[r] : 1.0f;
    float* out = dx + r * w.in + first;
    // The analyzer takes count for more than 0, and the totals for never cleared.
    // NOLINTBEGIN(clang-analyzer-core.UndefinedBinaryOperatorResult)
    if (block.adds) {
      for (int64_t i = 0; i < count; ++i) out[i] += sums[i] * factor;
    } else {
      for (int64_t i = 0; i < count; ++i) out[i] = sums[i] * factor;
    }
    // NOLINTEND(clang-analyzer-core.UndefinedBinaryOperatorResult)
  }
}

HWY_INLINE void PrefetchBytes(const void* data, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) hwy::Prefetch(static_cast<const uint8_t*>(data) + line);
}

// totals [rows][64] += a panel's operands times a decoded group. Scaled ones are rounded for a few
// rows at a time, which stay in the nearest cache, while those after them are asked for.
HWY_INLINE void AddGroupOfBlock(const Block& block, const float* tile, const uint32_t* operands,
                                const float* scales, float* totals) {
  if (scales == nullptr) return AddRowsOfTransposed(tile, block.unit, operands, block.rows, totals);
  constexpr int64_t kFew = 2 * kBlockRows, kFewInTiles = 32;
  HWY_ALIGN uint32_t rounded[(kFewInTiles + kMostRowsPastTheLast) * kPanelOutputs];
  const auto* dy = reinterpret_cast<const float*>(operands);
  const int64_t few = block.unit == BFloat16Unit::kTiles ? kFewInTiles : kFew;
  for (int64_t first = 0; first < block.rows; first += few) {
    const int64_t rows = HWY_MIN(few, block.rows - first), values = rows * kPanelOutputs;
    RoundOperands(dy, rows, scales, block.w->compute, block.unit, rounded);
    dy += values;
    PrefetchBytes(dy, values * static_cast<int64_t>(sizeof(float)));
    AddRowsOfTransposed(tile, block.unit, rounded, rows, totals);
    totals += rows * kMaxGroup;
  }
}

// Inner indices [64 begin, 64 end) of dx. Of few rows several groups, which lie together in each
// panel, are taken at a time, while the next ones are asked for.
HWY_ATTR void AddColumnsOf(const Block& block, int64_t begin, int64_t end, float* dx) {
  constexpr int64_t kMostGroups = 4;
  HWY_ALIGN float tile[kPanelOutputs * kMaxGroup];
  HWY_ALIGN float totals[kRowsPerBlock * kMaxGroup];
  const PackedMatrix& w = *block.w;
  const Groups groups(w);
  const ColumnOrder order(block);
  const int64_t panel_bytes = w.panel_bytes(), row_words = block.row_words();
  const int64_t per_stripe = kMaxGroup / w.group, last = HWY_MIN(end * per_stripe, w.groups());
  const int64_t at_once = HWY_MIN(kMostGroups, kRowsPerBlock / block.rows);
  for (int64_t first = begin * per_stripe; first < last; first += at_once) {
    const int64_t count = HWY_MIN(at_once, last - first), group_totals = block.rows * kMaxGroup;
    for (int64_t i = 0; i < count * group_totals; ++i) totals[i] = 0;
    const uint8_t* panel = w.data.data() + block.begin * panel_bytes + first * groups.bytes;
    const uint32_t* operands = block.operands;
    const uint8_t* following = panel + at_once * groups.bytes;  // groups, in the first panel
    for (int64_t p = block.begin; p < block.end; ++p, operands += block.rows * row_words) {
      const uint8_t* next = p + 1 < block.end ? panel + panel_bytes : following;
      for (int64_t i = 0; i < count; ++i) {
        const uint8_t* group = panel + i * groups.bytes;
        block.decode(w, group, tile);
        PrefetchBytes(next + i * groups.bytes, groups.bytes);
        AddGroupOfBlock(block, tile, operands, groups.Scales(group), totals + i * group_totals);
      }
      panel = next;
    }
    for (int64_t i = 0; i < count; ++i) StoreColumns(block, order, totals + i * group_totals, first + i, dx);
  }
}

HWY_ATTR void AddColumns(const Block& block, int64_t begin, int64_t end, float* dx) {
#if KERNELS_HAVE_BFLOAT16_PAIRS
  if (block.unit == BFloat16Unit::kTiles) {
    const TileSetting setting(static_cast<int>(HWY_MIN(block.rows, int64_t{kTileRows})), kTilePairs);
    return AddColumnsOf(block, begin, end, dx);
  }
#endif
  AddColumnsOf(block, begin, end, dx);
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(RoundOperands);
HWY_EXPORT(AddColumns);

namespace {

// Of each output in the range, the largest of its groups' scales; empty for formats that have none.
std::vector<float> LargestScales(const PackedMatrix& w, const OutputRange& range) {
  if (!InfoOf(w.format).scaled) return {};
  std::vector<float> largest(range.count());
  ParallelFor(range.begin_panel(), range.end_panel(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      float most[kPanelOutputs] = {};
      for (int64_t g = 0; g < w.groups(); ++g) {
        const float* scales = Scales(w, GroupData(w, panel, g));
        for (int64_t o = 0; o < kPanelOutputs; ++o) most[o] = std::max(most[o], std::abs(scales[o]));
      }
      const int64_t first = panel * kPanelOutputs;
      for (int64_t o = std::max(first, range.begin); o < std::min(first + kPanelOutputs, range.end); ++o) {
        largest[o - range.begin] = most[o - first];
      }
    }
  });
  return largest;
}

// The exponent of the power of two that brings a row's largest operand to [2^14, 2^15), as far as
// neither it nor the values times it leave fp32's range.
int ExponentToFloat16(const float* dy, const std::vector<float>& scales, int64_t count) {
  float largest_value = 0, largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = std::abs(dy[i]);
    if (!(value <= std::numeric_limits<float>::max())) continue;
    largest_value = std::max(largest_value, value);
    largest = std::max(largest, scales.empty() ? value : std::min(value * scales[i], 0x1p127f));
  }
  if (largest == 0) return 0;
  return std::clamp(14 - std::ilogb(largest), -126, 126 - std::max(0, std::ilogb(largest_value)));
}

// Packs a product's rows.
class Packer {
 public:
  explicit Packer(const TransposedProduct& product)
      : product_(product), range_(product.outputs.Of(*product.w)) {
    const PackedMatrix& w = *product.w;
    block_.w = &w;
    block_.unit = UnitFor(w.compute);
    block_.decode = InfoOf(w.format).kernel->choose(block_.unit).decode_transposed;
    block_.begin = range_.begin_panel();
    block_.end = range_.end_panel();
    if (w.compute == NumberFormat::kFloat16) largest_scales_ = LargestScales(w, range_);
  }

  int64_t outputs() const { return range_.count(); }
  int64_t words(int64_t rows) const { return (block_.end - block_.begin) * rows * block_.row_words(); }

  // Rows from `first` on, into `operands`; valid until the next are packed.
  const Block& Pack(int64_t first, int64_t rows, bool adds, uint32_t* operands) {
    const float* dy = product_.dy + first * product_.stride;
    block_.rows = rows;
    block_.adds = adds;
    block_.operands = operands;
    SetFactors(dy);
    const int64_t grain = std::max<int64_t>(1, kValuesWorthAThread / (rows * kPanelOutputs));
    ParallelFor(block_.begin, block_.end, grain, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) PackRows(dy, panel, operands);
    });
    return block_;
  }

 private:
  static constexpr int64_t kValuesWorthAThread = 1 << 16;

  void SetFactors(const float* dy) {
    if (block_.w->compute != NumberFormat::kFloat16) return;
    factors_.resize(block_.rows);
    inverse_factors_.resize(block_.rows);
    for (int64_t r = 0; r < block_.rows; ++r) {
      const int exponent = ExponentToFloat16(dy + r * product_.stride, largest_scales_, range_.count());
      factors_[r] = std::ldexp(1.0f, exponent);
      inverse_factors_[r] = std::ldexp(1.0f, -exponent);
    }
    block_.factors = inverse_factors_.data();
  }

  // Of a panel, with zeros outside of the range; rounded if no scales come in before.
  void PackRows(const float* dy, int64_t panel, uint32_t* operands) const {
    const auto round = HWY_DYNAMIC_DISPATCH(RoundOperands);
    const bool scaled = InfoOf(block_.w->format).scaled;
    const int64_t first = panel * kPanelOutputs;
    const int64_t begin = std::max(first, range_.begin), end = std::min(first + kPanelOutputs, range_.end);
    uint32_t* out = operands + (panel - block_.begin) * block_.rows * block_.row_words();
    for (int64_t r = 0; r < block_.rows; ++r, out += block_.row_words()) {
      alignas(64) float values[kPanelOutputs] = {};
      const float factor = factors_.empty() ? 1.0f : factors_[r];
      const float* row = dy + r * product_.stride;
      for (int64_t o = begin; o < end; ++o) values[o - first] = row[o - range_.begin] * factor;
      if (scaled) {
        std::copy_n(values, kPanelOutputs, reinterpret_cast<float*>(out));
      } else {
        round(values, 1, nullptr, block_.w->compute, block_.unit, out);
      }
    }
  }

  TransposedProduct product_;
  OutputRange range_;
  Block block_ = {};
  std::vector<float> largest_scales_;  // fp16: of the range's outputs
  // fp16: what each row is multiplied by, and its sums then.
  std::vector<float> factors_, inverse_factors_;
};

}  // namespace

void MultiplyTransposed(int64_t n, std::span<const TransposedProduct> products, float* dx) {
  const int64_t in = products.front().w->in;
  std::vector<Packer> packers(products.begin(), products.end());
  int64_t outputs = 0;
  for (const Packer& packer : packers) outputs += packer.outputs();
  for (int64_t first = 0; first < n; first += kRowsPerBlock) {
    const int64_t rows = std::min(kRowsPerBlock, n - first);
    int64_t words = kMostRowsPastTheLast * kPanelOutputs;
    for (const Packer& packer : packers) words += packer.words(rows);
    uint32_t* operands = KeptOperands(words);
    std::vector<const Block*> blocks;
    for (Packer& packer : packers) {
      blocks.push_back(&packer.Pack(first, rows, !blocks.empty(), operands));
      operands += packer.words(rows);
    }
    const int64_t grain = kMultiplicationsWorthAThread / std::max<int64_t>(1, rows * outputs * kMaxGroup);
    ParallelFor(0, (in + kMaxGroup - 1) / kMaxGroup, grain, [&](int64_t begin, int64_t end) {
      const auto add = HWY_DYNAMIC_DISPATCH(AddColumns);
      for (const Block* block : blocks) add(*block, begin, end, dx + first * in);
    });
  }
}

void MultiplyTransposed(const float* dy, int64_t n, const PackedMatrix& w, float* dx) {
  const TransposedProduct product{&w, dy, w.out};
  MultiplyTransposed(n, std::span(&product, 1), dx);
}

}  // namespace mechinterp::engine::kernels
#endif
