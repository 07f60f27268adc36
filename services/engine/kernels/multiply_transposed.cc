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

  bool scaled() const { return InfoOf(w->format).scaled; }
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

// The inner indices of one group: dx [rows, in] from totals [rows][64 columns].
HWY_INLINE void StoreColumns(const Block& block, const float* totals, int64_t group, float* dx) {
  const PackedMatrix& w = *block.w;
  const int values = block.unit == BFloat16Unit::kNone ? 0 : 32 / InfoOf(w.format).bits;
  const int64_t first = group * w.group, count = HWY_MIN(int64_t{w.group}, w.in - first);
  for (int64_t r = 0; r < block.rows; ++r, totals += kMaxGroup) {
    float ordered[kMaxGroup];
    const float* sums = totals;
    if (values != 0) {  // two neighbours are so in both orders
      for (int i = 0; i < w.group; i += 2) std::copy_n(totals + ColumnOf(i, values), 2, ordered + i);
      sums = ordered;
    }
    const float factor = block.factors != nullptr ? block.factors[r] : 1.0f;
    float* out = dx + r * w.in + first;
    if (block.adds) {
      for (int64_t i = 0; i < count; ++i) out[i] += sums[i] * factor;
    } else {
      for (int64_t i = 0; i < count; ++i) out[i] = sums[i] * factor;
    }
  }
}

HWY_INLINE void PrefetchBytes(const uint8_t* data, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) hwy::Prefetch(data + line);
}

// Inner indices [64 begin, 64 end) of dx. Several groups, which lie together in each panel, at
// a time: dy is then read fewer times from where a larger cache has it.
HWY_ATTR void AddColumnsOf(const Block& block, int64_t begin, int64_t end, float* dx) {
  static const int64_t kMostGroups = getenv("MG") ? atoi(getenv("MG")) : 4;
  static const int64_t kTot = getenv("MT") ? atoi(getenv("MT")) : 256;
  static const int64_t kPf = getenv("PF") ? atoi(getenv("PF")) : 1;
  constexpr int64_t kMostTotals = 8 * kRowsPerBlock;  // rows of 64
  HWY_ALIGN float tile[kPanelOutputs * kMaxGroup];
  HWY_ALIGN float totals[kMostTotals * kMaxGroup];
  HWY_ALIGN uint32_t scaled[(kRowsPerBlock + kMostRowsPastTheLast) * kPanelOutputs];
  const PackedMatrix& w = *block.w;
  const Groups groups(w);
  const int64_t rows = block.rows, per_stripe = kMaxGroup / w.group;
  const int64_t words =
      block.scaled() || block.unit == BFloat16Unit::kNone ? kPanelOutputs : kPanelOutputs / 2;
  const int64_t last = HWY_MIN(end * per_stripe, w.groups());
  const int64_t at_once = HWY_MIN(kMostGroups, kTot / rows);
  for (int64_t first = begin * per_stripe; first < last; first += at_once) {
    const int64_t count = HWY_MIN(at_once, last - first);
    for (int64_t i = 0; i < count * rows * kMaxGroup; ++i) totals[i] = 0;
    const uint8_t* panel = w.data.data() + block.begin * w.panel_bytes() + first * groups.bytes;
    const uint32_t* operands = block.operands;
    for (int64_t p = block.begin; p < block.end; ++p) {
      for (int64_t i = 0; i < count; ++i) {
        const uint8_t* group = panel + i * groups.bytes;
        block.decode(w, group, tile);
        if (kPf) PrefetchBytes(group + kPf * w.panel_bytes(), groups.bytes);
        const uint32_t* x = operands;
        if (groups.scales_at < groups.bytes) {
          RoundOperands(reinterpret_cast<const float*>(operands), rows, groups.Scales(group), w.compute,
                        block.unit, scaled);
          x = scaled;
        }
        AddRowsOfTransposed(tile, block.unit, x, rows, totals + i * rows * kMaxGroup);
      }
      panel += w.panel_bytes();
      operands += rows * words;
    }
    for (int64_t i = 0; i < count; ++i) {
      StoreColumns(block, totals + i * rows * kMaxGroup, first + i, dx);
    }
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
  ParallelFor(range.begin, range.end, kPanelOutputs, [&](int64_t begin, int64_t end) {
    for (int64_t g = 0; g < w.groups(); ++g) {
      for (int64_t o = begin; o < end; ++o) {
        const uint8_t* group = GroupData(w, o / kPanelOutputs, g);
        float& most = largest[o - range.begin];
        most = std::max(most, std::abs(Scales(w, group)[o % kPanelOutputs]));
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

// A product with what its rows are packed by.
class Packer {
 public:
  explicit Packer(const TransposedProduct& product)
      : product_(product), w_(*product.w), range_(product.outputs.Of(w_)), unit_(UnitFor(w_.compute)) {
    if (w_.compute == NumberFormat::kFloat16) largest_scales_ = LargestScales(w_, range_);
  }

  int64_t multiplications() const { return kMaxGroup * range_.count(); }  // for 64 inner indices of a row
  int64_t words(int64_t rows) const { return (end() - begin()) * rows * words_per_row(); }

  // Rows from `first` on, into `operands`.
  Block Pack(int64_t first, int64_t rows, bool adds, uint32_t* operands) {
    const float* dy = product_.dy + first * product_.stride;
    std::vector<float> factors;
    if (w_.compute == NumberFormat::kFloat16) {
      factors_.resize(rows);
      for (int64_t r = 0; r < rows; ++r) {
        const int exponent = ExponentToFloat16(dy + r * product_.stride, largest_scales_, range_.count());
        factors.push_back(std::ldexp(1.0f, exponent));
        factors_[r] = std::ldexp(1.0f, -exponent);
      }
    }
    const auto round = HWY_DYNAMIC_DISPATCH(RoundOperands);
    ParallelFor(begin(), end(), std::max<int64_t>(1, kValuesWorthAThread / (rows * kPanelOutputs)),
                [&](int64_t first_panel, int64_t last_panel) {
                  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
                    uint32_t* out = operands + (panel - begin()) * rows * words_per_row();
                    for (int64_t r = 0; r < rows; ++r, out += words_per_row()) {
                      alignas(64) float values[kPanelOutputs];
                      Read(dy + r * product_.stride, panel, factors.empty() ? 1.0f : factors[r], values);
                      if (scaled()) {
                        std::copy_n(values, kPanelOutputs, reinterpret_cast<float*>(out));
                      } else {
                        round(values, 1, nullptr, w_.compute, unit_, out);
                      }
                    }
                  }
                });
    return {&w_,      InfoOf(w_.format).kernel->choose(unit_).decode_transposed,
            unit_,    begin(),
            end(),    rows,
            operands, factors.empty() ? nullptr : factors_.data(),
            adds};
  }

 private:
  static constexpr int64_t kValuesWorthAThread = 1 << 16;

  bool scaled() const { return InfoOf(w_.format).scaled; }
  int64_t begin() const { return range_.begin_panel(); }
  int64_t end() const { return range_.end_panel(); }
  int64_t words_per_row() const {  // of a panel
    return scaled() || unit_ == BFloat16Unit::kNone ? kPanelOutputs : kPanelOutputs / 2;
  }

  // A panel's values of a row, zeros outside of the range.
  void Read(const float* row, int64_t panel, float factor, float* values) const {
    for (int64_t i = 0; i < kPanelOutputs; ++i) {
      const int64_t output = panel * kPanelOutputs + i;
      const bool is_there = output >= range_.begin && output < range_.end;
      values[i] = is_there ? row[output - range_.begin] * factor : 0.0f;
    }
  }

  const TransposedProduct& product_;
  const PackedMatrix& w_;
  const OutputRange range_;
  const BFloat16Unit unit_;
  std::vector<float> largest_scales_;  // of the range's outputs, for fp16
  std::vector<float> factors_;         // Block::factors
};

}  // namespace

void MultiplyTransposed(int64_t n, std::span<const TransposedProduct> products, float* dx) {
  const int64_t in = products.front().w->in;
  std::vector<Packer> packers(products.begin(), products.end());
  int64_t multiplications = 0;
  for (const Packer& packer : packers) multiplications += packer.multiplications();
  for (int64_t first = 0; first < n; first += kRowsPerBlock) {
    const int64_t rows = std::min(kRowsPerBlock, n - first);
    int64_t words = kMostRowsPastTheLast * kPanelOutputs;
    for (const Packer& packer : packers) words += packer.words(rows);
    uint32_t* operands = KeptOperands(words);
    std::vector<Block> blocks;
    for (Packer& packer : packers) {
      blocks.push_back(packer.Pack(first, rows, !blocks.empty(), operands));
      operands += packer.words(rows);
    }
    const int64_t grain =
        std::max<int64_t>(1, kMultiplicationsWorthAThread / std::max<int64_t>(1, rows * multiplications));
    ParallelFor(0, (in + kMaxGroup - 1) / kMaxGroup, grain, [&](int64_t begin, int64_t end) {
      for (const Block& block : blocks) HWY_DYNAMIC_DISPATCH(AddColumns)(block, begin, end, dx + first * in);
    });
  }
}

void MultiplyTransposed(const float* dy, int64_t n, const PackedMatrix& w, float* dx) {
  const TransposedProduct product{&w, dy, w.out};
  MultiplyTransposed(n, std::span(&product, 1), dx);
}

}  // namespace mechinterp::engine::kernels
#endif
