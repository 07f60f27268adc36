#include "services/engine/forward/head_gradient.h"

#include <algorithm>
#include <vector>

#include "services/engine/forward/backward_steps.h"
#include "services/engine/forward/gradient_hooks.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {
namespace {

// With respect to the logits of an item's rows of the head, [rows, V]: before the edits there.
std::vector<float> LogitsGradient(const Batch::Item& item, int run, int64_t width) {
  std::vector<float> gradient(item.rows * width);
  if (!HasRun(item, run)) return gradient;
  const GradientPlan& plan = *item.segment->gradient;
  const int64_t count = plan.metric_rows * width;
  const std::vector<float>& logits = item.segment->logits.values;
  plan.metric(absl::MakeConstSpan(logits).last(count), absl::MakeSpan(gradient).last(count));
  const HookSite site{HookPoint::kLogits, 0};
  RecordGradient(item, site, run, gradient.data(), 1, width);
  TransposeEdits(item, site, gradient.data(), 1, width);
  return gradient;
}

}  // namespace

void RunHeadBackward(const Model& model, const Batch& batch, int run, const Rows& gradient,
                     Arithmetic& math) {
  const int64_t width = model.config().vocabulary_size;
  math.Clear(gradient);
  const Batch head = batch.HeadRows();
  const Rows rows{Slot::kHeadRows, 0, head.row_count(), gradient.width};
  const Rows to_rows = math.Allocate(Slot::kHeadRowsGradient, rows.count, rows.width);
  for (const Batch::Item& item : head.items()) {
    const std::vector<float> of_logits = LogitsGradient(item, run, width);
    const Rows logits = math.Allocate(Slot::kLogitsGradient, item.rows, width);
    math.WriteRows(logits, [&](float* values) { std::copy(of_logits.begin(), of_logits.end(), values); });
    math.MultiplyTransposed({{&model.weights().unembedding, logits}},
                            to_rows.Part(item.first_row, item.rows));
  }
  BackwardSteps(model.config(), head, run, math)
      .Normalize(rows, model.weights().ln_final_gain, HookPoint::kLnFinalScale, HookPoint::kLnFinalNormalized,
                 /*layer=*/0, to_rows);
  auto item = batch.items().begin();
  for (const Batch::Item& part : head.items()) {
    while (item->segment != part.segment) ++item;
    math.Copy(to_rows.Part(part.first_row, part.rows),
              gradient.Part(item->first_row + item->rows - part.rows, part.rows));
  }
}

}  // namespace mechinterp::engine
