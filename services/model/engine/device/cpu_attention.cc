#include "services/model/engine/device/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "services/model/engine/kernels/kernels.h"
#include "services/model/engine/kernels/parallel.h"
#include "services/model/engine/kv_cache.h"

namespace mechinterp::engine {
namespace {

// One segment's attention at one layer.
struct Work {
  const ModelConfig& config;
  const Batch::Item& item;
  const float* query;  // [T, H, Dh]
  const float* keys;   // own positions, [_, KV, Dh]
  const float* values;
  const float* shared_keys;  // positions before them
  const float* shared_values;
  float* z;  // [T, H, Dh]

  int64_t head_size() const { return config.head_size; }
  int64_t key_count() const { return item.segment->first_position + item.rows; }
  // Keys that query row i sees: itself and everything before.
  int64_t Visible(int64_t i) const { return item.segment->first_position + i + 1; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(config.head_size)); }
  const float* Query(int64_t i, int64_t head) const {
    return query + (i * config.head_count + head) * head_size();
  }
  float* Z(int64_t i, int64_t head) const { return z + (i * config.head_count + head) * head_size(); }

  kernels::HeadSequence Sequence(int64_t head, const float* shared, const float* own) const {
    const int64_t offset = head / (config.head_count / config.key_value_head_count) * head_size();
    const int64_t shared_count = item.segment->shared_length;
    return {{shared_count > 0 ? shared + offset : nullptr, shared_count},
            {own + offset, key_count() - shared_count},
            config.key_value_width()};
  }
  kernels::HeadSequence Keys(int64_t head) const { return Sequence(head, shared_keys, keys); }
  kernels::HeadSequence Values(int64_t head) const { return Sequence(head, shared_values, values); }
};

void AttendHead(const Work& work, int64_t head) {
  const kernels::HeadSequence keys = work.Keys(head), values = work.Values(head);
  std::vector<float> scores(work.key_count());
  for (int64_t i = 0; i < work.item.rows; ++i) {
    const int64_t visible = work.Visible(i);
    kernels::ScoreRow(work.Query(i, head), keys, visible, work.head_size(), work.scale(), scores.data());
    kernels::SoftmaxRow(scores.data(), visible);
    kernels::MixRow(scores.data(), values, visible, work.head_size(), work.Z(i, head));
  }
}

// The same steps for all heads at once, with the scores and the pattern laid out
// for the hooks: [T, H, keys]. What the causal mask hides stays hidden, whatever
// an edit put there.
void AttendWithHooks(const Work& work, int layer) {
  const int64_t heads = work.config.head_count, width = work.key_count();
  std::vector<float> scores(work.item.rows * heads * width);
  auto row = [&](int64_t i, int64_t head) { return scores.data() + (i * heads + head) * width; };
  auto for_each_row = [&](auto&& function) {
    for (int64_t i = 0; i < work.item.rows; ++i) {
      for (int64_t head = 0; head < heads; ++head) function(i, head, row(i, head));
    }
  };
  auto hide = [&](float hidden) {
    for_each_row([&](int64_t i, int64_t, float* values) {
      std::fill(values + work.Visible(i), values + width, hidden);
    });
  };
  auto hook = [&](HookPoint point, float hidden) {
    hide(hidden);
    const HookSite site{point, layer};
    if (Batch::Edits(work.item, site)) {
      // Hidden entries are put back after the edit and before the capture sees them.
      Batch::EditItem(work.item, site, scores.data(), heads, width);
      hide(hidden);
    }
    Batch::CaptureItem(work.item, site, scores.data(), heads, width);
  };

  for_each_row([&](int64_t i, int64_t head, float* values) {
    kernels::ScoreRow(work.Query(i, head), work.Keys(head), work.Visible(i), work.head_size(), work.scale(),
                      values);
  });
  hook(HookPoint::kAttnScores, -std::numeric_limits<float>::infinity());
  for_each_row([&](int64_t i, int64_t, float* values) { kernels::SoftmaxRow(values, work.Visible(i)); });
  hook(HookPoint::kPattern, 0.0f);
  for_each_row([&](int64_t i, int64_t head, float* values) {
    kernels::MixRow(values, work.Values(head), work.Visible(i), work.head_size(), work.Z(i, head));
  });
}

Work PrepareWork(const ModelConfig& config, const Batch::Item& item, int layer, const float* query,
                 const float* key, const float* value, float* z) {
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
          z + item.first_row * config.query_width()};
}

}  // namespace

void AttendOnCpu(const ModelConfig& config, const Batch& batch, int layer, const float* query,
                 const float* key, const float* value, float* z) {
  std::vector<Work> plain;
  int64_t multiplications = 0;  // of one head, over all segments
  for (const Batch::Item& item : batch.ItemsAt(layer)) {
    const Work work = PrepareWork(config, item, layer, query, key, value, z);
    if (Batch::Wants(item, {HookPoint::kAttnScores, layer}) ||
        Batch::Wants(item, {HookPoint::kPattern, layer})) {
      AttendWithHooks(work, layer);
    } else {
      plain.push_back(work);
      multiplications += 2 * item.rows * work.key_count() * config.head_size;
    }
  }
  constexpr int64_t kMultiplicationsWorthAThread = 1 << 16;
  const auto count = static_cast<int64_t>(plain.size());
  const int64_t mean = count == 0 ? 1 : std::max<int64_t>(1, multiplications / count);
  const int64_t grain = std::max<int64_t>(1, kMultiplicationsWorthAThread / mean);
  kernels::ParallelFor(0, count * config.head_count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) AttendHead(plain[i / config.head_count], i % config.head_count);
  });
}

}  // namespace mechinterp::engine
