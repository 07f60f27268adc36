// fp32 weights.
#include "services/engine/kernels/weight_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/multiply_f32.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/engine/kernels/products-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

void AddRowsOfTile(const FloatWeights& tile, int octets, const uint32_t* x, int64_t n, const float* scales,
                   float* totals) {
  AddGroupOfRows(tile, octets, x, n, Prefetcher(), scales, totals);
}

// Never packed for products of bf16.
Products ChooseFloat32(BFloat16Unit unit) { return ProductsFor<FloatWeights, NoPairs>(unit); }

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {
namespace {

// Of an inner index the 64 outputs' values lie together, rounded to the compute type.
void Pack(PackedMatrix& matrix, int64_t panel, const float* rows) {
  ForEachValue(matrix, panel, rows, [&](uint8_t* group, int64_t i, int64_t output, float value) {
    reinterpret_cast<float*>(group)[i * kPanelOutputs + output] = RoundTo(matrix.compute, value);
  });
}

HWY_EXPORT(ChooseFloat32);

Products Choose(BFloat16Unit unit) { return HWY_DYNAMIC_DISPATCH(ChooseFloat32)(unit); }

}  // namespace

const WeightKernel kFloat32Kernel = {Pack, Choose};

}  // namespace mechinterp::engine::kernels
#endif
