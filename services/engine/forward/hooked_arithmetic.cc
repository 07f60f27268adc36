#include "services/engine/forward/hooked_arithmetic.h"

namespace mechinterp::engine {

void HookedArithmetic::Hook(HookPoint point, int layer, const Rows& values) {
  const SiteShape shape = ShapeOf(point, config_);
  batch_.Hook({point, layer}, shape.heads, shape.width,
              [&](int64_t first, int64_t count, Batch::Changes function) {
                math_.WithHostRows(values.Part(first, count), function);
              });
}

Rows HookedArithmetic::HookCopy(HookPoint point, int layer, const Rows& x) {
  if (!batch_.Wants({point, layer})) return x;
  const Rows copy = math_.Allocate(Slot::kReceiverInput, x.count, x.width);
  math_.Copy(x, copy);
  Hook(point, layer, copy);
  return copy;
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

Rows HookedArithmetic::ProjectPart(const Rows& x, const LinearWeight& weight, Slot slot, int64_t first,
                                   int64_t count) {
  math_.Multiply(x, {{&weight, slot, first, first + count}});
  const Rows part{slot, 0, x.count, count};
  if (weight.bias.defined()) math_.AddColumns(part, weight.bias.narrow(0, first, count));
  return part;
}

Rows HookedArithmetic::Normalize(const Rows& x, const at::Tensor& gain, HookPoint scale_point,
                                 HookPoint normalized_point, int layer) {
  return NormalizeWith(x, gain, scale_point, normalized_point,
                       [&](HookPoint point, const Rows& rows) { Hook(point, layer, rows); });
}

Rows HookedArithmetic::NormalizeItem(const Batch::Item& item, const Rows& x, const at::Tensor& gain,
                                     HookPoint scale_point, HookPoint normalized_point, int layer) {
  return NormalizeWith(x, gain, scale_point, normalized_point, [&](HookPoint point, const Rows& rows) {
    const HookSite site{point, layer};
    if (!Batch::Edits(item, site)) return;
    math_.WithHostRows(rows, [&](float* values) {
      Batch::EditItem(item, site, values, 1, rows.width);
      return true;
    });
  });
}

Rows HookedArithmetic::NormalizeWith(const Rows& x, const at::Tensor& gain, HookPoint scale_point,
                                     HookPoint normalized_point,
                                     absl::FunctionRef<void(HookPoint, const Rows&)> hook) {
  const Rows scale = math_.Allocate(Slot::kScale, x.count, 1);
  math_.RootMeanSquare(x, epsilon(), scale);
  hook(scale_point, scale);
  const Rows normalized = math_.Allocate(Slot::kNormalized, x.count, x.width);
  math_.DivideRows(x, scale, normalized);
  hook(normalized_point, normalized);
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
