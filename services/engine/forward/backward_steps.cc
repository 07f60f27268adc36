#include "services/engine/forward/backward_steps.h"

#include "services/engine/forward/gradient_hooks.h"

namespace mechinterp::engine {
namespace {

bool StartsAtTheBeginning(const Segment& segment) {
  return segment.entry_layer == 0 && segment.entry_point == HookPoint::kResidPre;
}

}  // namespace

void BackwardSteps::Hook(HookPoint point, int layer, const Rows& gradient) {
  const HookSite site{point, layer};
  const SiteShape shape = ShapeOf(point, config_);
  for (const Batch::Item& item : batch_.items()) {
    // A segment of the stream at the model's beginning was given its embeddings, with the edits of them.
    const bool given = PartOf(point) == PassPart::kEmbedding && item.segment->tokens.empty();
    if (given && !StartsAtTheBeginning(*item.segment)) continue;
    const bool edits = !given && Batch::Edits(item, site);
    if (!edits && !WantsGradient(item, site)) continue;
    math_.WithHostRows(gradient.Part(item.first_row, item.rows), [&](float* data) {
      RecordGradient(item, site, run_, data, shape.heads, shape.width);
      if (edits) TransposeEdits(item, site, data, shape.heads, shape.width);
      return edits;
    });
  }
}

void BackwardSteps::Drop(int layer, const Rows& gradient) {
  for (const Batch::Item& item : batch_.items()) {
    if (RunOf(item, run_).dropped_layer == layer) math_.Clear(gradient.Part(item.first_row, item.rows));
  }
}

void BackwardSteps::Normalize(const Rows& x, const at::Tensor& gain, HookPoint scale_point,
                              HookPoint normalized_point, int layer, const Rows& gradient) {
  Normalize(x, gain, {{scale_point, layer}, {normalized_point, layer}}, gradient, batch_.items(), true);
}

void BackwardSteps::NormalizeItem(const Batch::Item& item, const Rows& x, const at::Tensor& gain,
                                  HookPoint scale_point, HookPoint normalized_point, int layer,
                                  const Rows& gradient) {
  Batch::Item alone = item;
  alone.first_row = 0;
  Normalize(x, gain, {{scale_point, layer}, {normalized_point, layer}}, gradient,
            absl::MakeConstSpan(&alone, 1), false);
}

// The first row of x and of the gradient is the first item's.
void BackwardSteps::Normalize(const Rows& x, const at::Tensor& gain, const NormSites& sites,
                              const Rows& gradient, absl::Span<const Batch::Item> items, bool records) {
  const auto back = [&](const Batch::Item& item, const HookSite& site, float* data, int64_t width) {
    if (records) RecordGradient(item, site, run_, data, 1, width);
    TransposeEdits(item, site, data, 1, width);
    return Batch::Edits(item, site);
  };
  math_.MultiplyColumns(gradient, gain);
  HookItems(items, sites.normalized, gradient, back);
  const Rows root = math_.Allocate(Slot::kRootMeanSquare, x.count, 1);
  math_.RootMeanSquare(x, epsilon(), root);
  const Rows scale = math_.Allocate(Slot::kScale, x.count, 1);
  math_.Copy(root, scale);
  HookItems(items, sites.scale, scale,
            [&](const Batch::Item& item, const HookSite& site, float* data, int64_t width) {
              if (!Batch::Edits(item, site)) return false;
              Batch::EditItem(item, site, data, 1, width);
              return true;
            });
  const Rows scale_gradient = math_.Allocate(Slot::kScaleGradient, x.count, 1);
  math_.ScaleGradient(x, scale, gradient, scale_gradient);
  for (const Batch::Item& item : items) {
    if (RunOf(item, run_).rule != BackwardRule::kGradient) {  // a constant
      math_.Clear(scale_gradient.Part(item.first_row, item.rows));
    }
  }
  HookItems(items, sites.scale, scale_gradient, back);
  math_.NormGradient(x, root, scale, scale_gradient, gradient);
}

void BackwardSteps::HookItems(absl::Span<const Batch::Item> items, const HookSite& site, const Rows& rows,
                              ItemHook function) {
  for (const Batch::Item& item : items) {
    if (!Batch::Edits(item, site) && !WantsGradient(item, site)) continue;
    math_.WithHostRows(rows.Part(item.first_row, item.rows),
                       [&](float* data) { return function(item, site, data, rows.width); });
  }
}

void BackwardSteps::NormalizeHeads(const Rows& x, int64_t heads, const at::Tensor& gain,
                                   const Rows& gradient) {
  const Rows each = x.SplitInto(heads), each_gradient = gradient.SplitInto(heads);  // [N * heads, Dh]
  math_.MultiplyColumns(each_gradient, gain);
  const Rows scale = math_.Allocate(Slot::kScale, each.count, 1);
  math_.RootMeanSquare(each, epsilon(), scale);
  const Rows scale_gradient = math_.Allocate(Slot::kScaleGradient, each.count, 1);
  math_.ScaleGradient(each, scale, each_gradient, scale_gradient);
  math_.NormGradient(each, scale, scale, scale_gradient, each_gradient);
}

void BackwardSteps::SiluMultiply(const Rows& gate, const Rows& up, const Rows& gradient) {
  const Rows to_gate = math_.Allocate(Slot::kGateGradient, gate.count, gate.width);
  const Rows to_up = math_.Allocate(Slot::kUpGradient, up.count, up.width);
  ForEachRule([&](BackwardRule rule, int64_t first, int64_t count) {
    math_.SiluMultiplyGradient(rule, gate.Part(first, count), up.Part(first, count),
                               gradient.Part(first, count), to_gate.Part(first, count),
                               to_up.Part(first, count));
  });
}

void BackwardSteps::ForEachRule(
    absl::FunctionRef<void(BackwardRule rule, int64_t first, int64_t count)> function) const {
  const absl::Span<const Batch::Item> items = batch_.items();
  for (size_t begin = 0, end; begin < items.size(); begin = end) {
    const BackwardRule rule = RunOf(items[begin], run_).rule;
    for (end = begin + 1; end < items.size() && RunOf(items[end], run_).rule == rule; ++end) {
    }
    const int64_t first = items[begin].first_row;
    function(rule, first, items[end - 1].first_row + items[end - 1].rows - first);
  }
}

}  // namespace mechinterp::engine
