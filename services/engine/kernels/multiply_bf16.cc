// bf16 weights.
#include "services/engine/kernels/weight_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/multiply_bf16.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/engine/kernels/multiply-inl.h"
#include "services/engine/kernels/pairs-inl.h"
#include "services/engine/kernels/tiles-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

struct BFloat16Weights {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesPerOctet = 4;
  const uint8_t* data;
  HWY_INLINE BFloat16Weights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int octet, int v) const {
    const auto* pairs = reinterpret_cast<const uint32_t*>(data);
    const VU pair = hn::Load(U(), pairs + (4 * octet + kStep / 2) * kPanelOutputs + v * kLanes);
    return hn::BitCast(F(),
                       kStep % 2 == 0 ? hn::ShiftLeft<16>(pair) : hn::And(pair, hn::Set(U(), 0xffff0000u)));
  }
};

HWY_ATTR void MultiplyBFloat16(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin,
                               int64_t end, float* y) {
  MultiplyPanelsOf<BFloat16Weights, FloatWeights>(w, x, n, begin, end, y);
}

#if KERNELS_HAVE_BFLOAT16_PAIRS

void AddRowsOfTile(const PairWeights& tile, int octets, const uint32_t* x, int64_t n, const float* scales,
                   float* totals) {
  AddGroupOfRows(tile, octets, x, n, Prefetcher(), scales, totals);
}

HWY_ATTR void MultiplyBFloat16InPairs(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin,
                                      int64_t end, float* y) {
  MultiplyPanelsOf<PairWeights, PairWeights>(w, x, n, begin, end, y);
}

HWY_ATTR void MultiplyBFloat16InTiles(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin,
                                      int64_t end, float* y) {
  MultiplyPanelsInTilesOf<PairWeights>(w, x, n, begin, end, y);
}

#else  // never chosen

void MultiplyBFloat16InPairs(const PackedMatrix&, const uint32_t*, int64_t, int64_t, int64_t, float*) {}
void MultiplyBFloat16InTiles(const PackedMatrix&, const uint32_t*, int64_t, int64_t, int64_t, float*) {}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "services/common/float16.h"

namespace mechinterp::engine::kernels {
namespace {

// Of two neighbouring inner indices the 64 outputs' pairs lie together.
void Pack(PackedMatrix& matrix, int64_t panel, const float* rows) {
  ForEachValue(matrix, panel, rows, [](uint8_t* group, int64_t i, int64_t output, float value) {
    reinterpret_cast<uint16_t*>(group)[(i / 2 * kPanelOutputs + output) * 2 + i % 2] = FloatToBFloat16(value);
  });
}

HWY_EXPORT(MultiplyBFloat16);
HWY_EXPORT(MultiplyBFloat16InPairs);
HWY_EXPORT(MultiplyBFloat16InTiles);

MultiplyPanels* Choose(BFloat16Unit unit) {
  switch (unit) {
    case BFloat16Unit::kPairs:
      return HWY_DYNAMIC_DISPATCH(MultiplyBFloat16InPairs);
    case BFloat16Unit::kTiles:
      return HWY_DYNAMIC_DISPATCH(MultiplyBFloat16InTiles);
    case BFloat16Unit::kNone:
      break;
  }
  return HWY_DYNAMIC_DISPATCH(MultiplyBFloat16);
}

}  // namespace

const WeightKernel kBFloat16Kernel = {Pack, Choose};

}  // namespace mechinterp::engine::kernels
#endif
