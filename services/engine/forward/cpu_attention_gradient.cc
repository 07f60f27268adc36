#include "services/engine/forward/cpu_attention_gradient.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "services/engine/forward/cpu_attention_work.h"
#include "services/engine/forward/gradient_hooks.h"
#include "services/engine/kernels/gradient_rows.h"
#include "services/engine/kernels/parallel.h"

namespace mechinterp::engine {
namespace {

// One segment's attention, and where its gradients are.
struct Work {
  AttentionWork forward;
  const float* z_gradient;  // [T, H, Dh]
  AttentionArrays<float> gradients;
  BackwardRule rule;

  const float* ZGradient(int64_t i, int64_t head) const { return z_gradient + forward.At(i, head); }

  // From the gradients with respect to a row's z, its heads of one key/value head from `head` on,
  // to those with respect to their pattern, [h * stride + key].
  void PatternGradient(int64_t i, int64_t head, float* gradient, int64_t stride) const {
    forward.MultiplyValues(i, head, ZGradient(i, head), gradient, stride);
  }
  // The same for all keys, those that the row does not see too.
  void WholePatternGradient(int64_t i, int64_t head, float* gradient, int64_t stride) const {
    kernels::ScoreRows(ZGradient(i, head), forward.group(),
                       forward.Sequence(head / forward.group(), forward.shared_values, forward.values),
                       forward.key_count(), forward.head_size(), 1, gradient, stride);
  }
  // Adds what their z passes to the values.
  void AddToValues(int64_t i, int64_t head, const float* pattern, int64_t stride) const {
    Accumulate(i, head, pattern, stride, ZGradient(i, head), gradients.value);
  }
  // From the gradients with respect to their scores, before these are scaled, to those with
  // respect to the query, and what it adds to the keys'.
  void AddToQueryAndKeys(int64_t i, int64_t head, const float* gradient, int64_t stride) const {
    forward.MixKeys(i, head, gradient, stride, gradients.query + forward.At(i, head));
    Accumulate(i, head, gradient, stride, forward.query + forward.At(i, head), gradients.key);
  }
  // Of one head's row: from the pattern's gradient to that of the scores, in place.
  void SoftmaxGradient(int64_t i, const float* pattern, float scale, float* gradient) const {
    const int64_t first = forward.First(i);
    kernels::SoftmaxGradientRow(pattern + first, forward.Visible(i), scale, gradient + first);
  }

 private:
  void Accumulate(int64_t i, int64_t head, const float* weights, int64_t stride, const float* vectors,
                  float* rows) const {
    const int64_t width = forward.config.key_value_width(), first = forward.First(i);
    kernels::AccumulateRows(weights + first, stride, forward.group(), vectors, forward.Visible(i),
                            forward.head_size(),
                            rows + first * width + head / forward.group() * forward.head_size(), width);
  }
};

// Of the query heads of one key/value head.
void AttendGroupBackward(const Work& work, int64_t key_value_head) {
  const AttentionWork& forward = work.forward;
  const int64_t head = key_value_head * forward.group(), stride = forward.key_count();
  std::vector<float> pattern(forward.group() * stride), gradient(forward.group() * stride);
  for (int64_t i = 0; i < forward.item.rows; ++i) {
    forward.Score(i, head, pattern.data(), stride);
    for (int64_t h = 0; h < forward.group(); ++h) forward.Softmax(i, pattern.data() + h * stride);
    work.AddToValues(i, head, pattern.data(), stride);
    if (work.rule == BackwardRule::kRelevance) continue;
    work.PatternGradient(i, head, gradient.data(), stride);
    for (int64_t h = 0; h < forward.group(); ++h) {
      work.SoftmaxGradient(i, pattern.data() + h * stride, forward.scale(), gradient.data() + h * stride);
    }
    work.AddToQueryAndKeys(i, head, gradient.data(), stride);
  }
}

// The same steps for all heads at once, with everything laid out for the hooks.
void AttendBackwardWithHooks(const Work& work, int layer, int run) {
  const AttentionWork& forward = work.forward;
  const int64_t heads = forward.config.head_count, width = forward.key_count();
  const HookSite scores_site{HookPoint::kAttnScores, layer}, pattern_site{HookPoint::kPattern, layer};
  ScoresOfSegment softmax(forward);  // the pattern before its edits
  softmax.ForEachGroup([&](int64_t i, int64_t head) { forward.Score(i, head, softmax.Row(i, head), width); });
  softmax.Edit(scores_site, -std::numeric_limits<float>::infinity());
  softmax.ForEachRow([&](int64_t i, int64_t, float* row) { forward.Softmax(i, row); });
  softmax.Hide(0);
  ScoresOfSegment pattern = softmax;
  pattern.Edit(pattern_site, 0);

  ScoresOfSegment gradient(forward);
  const auto hook = [&](const HookSite& site) {
    RecordGradient(forward.item, site, run, gradient.data(), heads, width);
    TransposeEdits(forward.item, site, gradient.data(), heads, width);
    gradient.Hide(0);
  };
  gradient.ForEachGroupInOrder([&](int64_t i, int64_t head) {
    work.WholePatternGradient(i, head, gradient.Row(i, head), width);
    work.AddToValues(i, head, pattern.Row(i, head), width);
  });
  hook(pattern_site);
  const bool passes = work.rule != BackwardRule::kRelevance;
  gradient.ForEachRow([&](int64_t i, int64_t head, float* row) {
    if (passes) {
      work.SoftmaxGradient(i, softmax.Row(i, head), 1, row);
    } else {
      std::fill(row, row + width, 0.0f);
    }
  });
  hook(scores_site);
  if (!passes) return;
  gradient.ForEachRow([&](int64_t, int64_t, float* row) {
    for (int64_t t = 0; t < width; ++t) row[t] *= forward.scale();
  });
  gradient.ForEachGroupInOrder(
      [&](int64_t i, int64_t head) { work.AddToQueryAndKeys(i, head, gradient.Row(i, head), width); });
}

}  // namespace

void AttendBackwardOnCpu(const ModelConfig& config, const Batch& batch, int layer, int run,
                         const AttentionArrays<const float>& forward, const float* z_gradient,
                         const AttentionArrays<float>& gradients) {
  const int64_t queries = config.query_width(), keys = config.key_value_width();
  std::fill_n(gradients.query, batch.row_count() * queries, 0.0f);
  std::fill_n(gradients.key, batch.row_count() * keys, 0.0f);
  std::fill_n(gradients.value, batch.row_count() * keys, 0.0f);
  std::vector<Work> plain;
  for (const Batch::Item& item : batch.items()) {
    const int64_t row = item.first_row;
    const Work work{
        {config, item, forward.query + row * queries, forward.key + row * keys, forward.value + row * keys,
         nullptr, nullptr, config.layers[layer].window},
        z_gradient + row * queries,
        {gradients.query + row * queries, gradients.key + row * keys, gradients.value + row * keys},
        RunOf(item, run).rule};
    const auto has_hook = [&](HookPoint point) {
      return Batch::Edits(item, {point, layer}) || WantsGradient(item, {point, layer});
    };
    if (has_hook(HookPoint::kAttnScores) || has_hook(HookPoint::kPattern)) {
      AttendBackwardWithHooks(work, layer, run);
    } else {
      plain.push_back(work);
    }
  }
  const int64_t groups = config.key_value_head_count;
  kernels::ParallelFor(0, static_cast<int64_t>(plain.size()) * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) AttendGroupBackward(plain[i / groups], i % groups);
  });
}

}  // namespace mechinterp::engine
