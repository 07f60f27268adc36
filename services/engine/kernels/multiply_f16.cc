// fp16 weights.
#include "services/engine/kernels/weight_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/multiply_f16.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/engine/kernels/products-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

// Every fp16 value is one of fp32.
struct Float16Weights {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesPerOctet = 4;
  const uint8_t* data;
  HWY_INLINE Float16Weights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int octet, int v) const {
    const auto* values = reinterpret_cast<const hwy::float16_t*>(data);
    const hn::Rebind<hwy::float16_t, F> half;
    return hn::PromoteTo(F(), hn::Load(half, values + (8 * octet + kStep) * kPanelOutputs + v * kLanes));
  }
};

// Never packed for products of bf16.
Products ChooseFloat16(BFloat16Unit unit) { return ProductsFor<Float16Weights, NoPairs>(unit); }

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "services/common/float16.h"

namespace mechinterp::engine::kernels {
namespace {

// Of an inner index the 64 outputs' values lie together.
void Pack(PackedMatrix& matrix, int64_t panel, const float* rows) {
  ForEachValue(matrix, panel, rows, [](uint8_t* group, int64_t i, int64_t output, float value) {
    reinterpret_cast<uint16_t*>(group)[i * kPanelOutputs + output] = FloatToFloat16(value);
  });
}

HWY_EXPORT(ChooseFloat16);

Products Choose(BFloat16Unit unit) { return HWY_DYNAMIC_DISPATCH(ChooseFloat16)(unit); }

}  // namespace

const WeightKernel kFloat16Kernel = {Pack, Choose};

}  // namespace mechinterp::engine::kernels
#endif
