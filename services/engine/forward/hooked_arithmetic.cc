#include "services/engine/forward/hooked_arithmetic.h"

namespace mechinterp::engine {

void HookedArithmetic::Hook(HookPoint point, int layer, const Rows& values) {
  const SiteShape shape = ShapeOf(point, config_);
  batch_.Hook({point, layer}, shape.heads, shape.width,
              [&](int64_t first, int64_t count, Batch::Changes function) {
                math_.WithHostRows(values.Part(first, count), function);
              });
}

void HookedArithmetic::Project(const Rows& x, std::initializer_list<Arithmetic::Product> products) {
  math_.Multiply(x, products);
  for (const Arithmetic::Product& product : products) {
    const LinearWeight& weight = *product.weight;
    if (weight.bias.defined()) math_.AddColumns({product.slot, 0, x.count, weight.out()}, weight.bias);
  }
}

Rows HookedArithmetic::Project(const Rows& x, const LinearWeight& weight, Slot slot) {
  Project(x, {{&weight, slot}});
  return {slot, 0, x.count, weight.out()};
}

Rows HookedArithmetic::Normalize(const Rows& x, const at::Tensor& gain, HookPoint scale_point,
                                 HookPoint normalized_point, int layer) {
  const Rows scale = math_.Allocate(Slot::kScale, x.count, 1);
  math_.RootMeanSquare(x, epsilon(), scale);
  Hook(scale_point, layer, scale);
  const Rows normalized = math_.Allocate(Slot::kNormalized, x.count, x.width);
  math_.DivideRows(x, scale, normalized);
  Hook(normalized_point, layer, normalized);
  math_.MultiplyColumns(normalized, gain);
  return normalized;
}

void HookedArithmetic::NormalizeHeads(const Rows& x, int64_t heads, const at::Tensor& gain) {
  const Rows each = x.SplitInto(heads);  // [N * heads, Dh]
  const Rows scale = math_.Allocate(Slot::kScale, each.count, 1);
  math_.RootMeanSquare(each, epsilon(), scale);
  math_.DivideRows(each, scale, each);
  math_.MultiplyColumns(each, gain);
}

}  // namespace mechinterp::engine
