#include "services/engine/forward/cpu_attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "services/engine/forward/cpu_attention_work.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/kernels/parallel.h"

namespace mechinterp::engine {
namespace {

using Work = AttentionWork;

// Of the query heads of one key/value head; z [T, H, Dh] of the segment.
void AttendGroup(const Work& work, int64_t key_value_head, float* z) {
  const int64_t head = key_value_head * work.group(), stride = work.key_count();
  std::vector<float> scores(work.group() * stride);
  for (int64_t i = 0; i < work.item.rows; ++i) {
    work.Score(i, head, scores.data(), stride);
    for (int64_t h = 0; h < work.group(); ++h) {
      work.Softmax(i, scores.data() + h * stride);
    }
    work.MixValues(i, head, scores.data(), stride, z + work.At(i, head));
  }
}

// The same steps for all heads at once, with the scores and the pattern laid out for the hooks.
void AttendWithHooks(const Work& work, int layer, float* z) {
  ScoresOfSegment scores(work);
  const int64_t heads = work.config.head_count, width = scores.width();
  auto hook = [&](HookPoint point, float hidden) {
    const HookSite site{point, layer};
    scores.Edit(site, hidden);
    Batch::CaptureItem(work.item, site, scores.data(), heads, width);
  };
  scores.ForEachGroup([&](int64_t i, int64_t head) { work.Score(i, head, scores.Row(i, head), width); });
  hook(HookPoint::kAttnScores, -std::numeric_limits<float>::infinity());
  scores.ForEachRow([&](int64_t i, int64_t, float* values) { work.Softmax(i, values); });
  hook(HookPoint::kPattern, 0.0f);
  scores.ForEachGroup([&](int64_t i, int64_t head) {
    work.MixValues(i, head, scores.Row(i, head), width, z + work.At(i, head));
  });
}

Work PrepareWork(const ModelConfig& config, const Batch::Item& item, int layer, const float* query,
                 const float* key, const float* value) {
  Segment& segment = *item.segment;
  const float* own_keys = key + item.first_row * config.key_value_width();
  const float* own_values = value + item.first_row * config.key_value_width();
  if (segment.cache != nullptr) {
    segment.cache->Append(layer, own_keys, own_values, item.rows);
    own_keys = segment.cache->keys(layer);
    own_values = segment.cache->values(layer);
  }
  return {config,
          item,
          query + item.first_row * config.query_width(),
          own_keys,
          own_values,
          segment.shared ? segment.shared->keys(layer) : nullptr,
          segment.shared ? segment.shared->values(layer) : nullptr,
          config.layers[layer].window};
}

}  // namespace

void AttendOnCpu(const ModelConfig& config, const Batch& batch, int layer, const float* query,
                 const float* key, const float* value, float* z) {
  const auto z_of = [&](const Work& work) { return z + work.item.first_row * config.query_width(); };
  std::vector<Work> plain;
  int64_t multiplications = 0;  // of one key/value head's query heads, over all segments
  for (const Batch::Item& item : batch.ItemsAt({HookPoint::kResidPre, layer})) {
    const Work work = PrepareWork(config, item, layer, query, key, value);
    if (Batch::Wants(item, {HookPoint::kAttnScores, layer}) ||
        Batch::Wants(item, {HookPoint::kPattern, layer})) {
      AttendWithHooks(work, layer, z_of(work));
    } else {
      plain.push_back(work);
      multiplications += 2 * item.rows * work.key_count() * config.head_size * work.group();
    }
  }
  constexpr int64_t kMultiplicationsWorthAThread = 1 << 16;
  const auto count = static_cast<int64_t>(plain.size());
  const int64_t groups = config.key_value_head_count;
  const int64_t mean = std::max<int64_t>(1, multiplications / std::max<int64_t>(1, count));
  const int64_t grain = std::max<int64_t>(1, kMultiplicationsWorthAThread / mean);
  kernels::ParallelFor(0, count * groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) AttendGroup(plain[i / groups], i % groups, z_of(plain[i / groups]));
  });
}

}  // namespace mechinterp::engine
