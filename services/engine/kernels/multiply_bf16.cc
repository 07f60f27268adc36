// bf16 weights.
#include "services/engine/kernels/weight_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/multiply_bf16.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/engine/kernels/products-inl.h"
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

#if KERNELS_HAVE_BFLOAT16_PAIRS

void AddRowsOfTile(const PairWeights& tile, int octets, const uint32_t* x, int64_t n, const float* scales,
                   float* totals) {
  AddGroupOfRows(tile, octets, x, n, Prefetcher(), scales, totals);
}

#else

using PairWeights = NoPairs;

#endif

Products ChooseBFloat16(BFloat16Unit unit) { return ProductsFor<BFloat16Weights, PairWeights>(unit); }

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

HWY_EXPORT(ChooseBFloat16);

Products Choose(BFloat16Unit unit) { return HWY_DYNAMIC_DISPATCH(ChooseBFloat16)(unit); }

}  // namespace

const WeightKernel kBFloat16Kernel = {Pack, Choose};

}  // namespace mechinterp::engine::kernels
#endif
