#include "services/engine/forward/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "services/engine/forward/kv_cache.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/kernels/rows.h"

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
  float* z;        // [T, H, Dh]
  int64_t window;  // LayerConfig's

  int64_t head_size() const { return config.head_size; }
  int64_t key_count() const { return item.segment->first_position + item.rows; }
  // Query row i sees the keys in [First(i), End(i)): itself and what is before, or what of
  // that is in its window.
  int64_t End(int64_t i) const { return item.segment->first_position + i + 1; }
  int64_t First(int64_t i) const { return window == 0 ? 0 : std::max<int64_t>(0, End(i) - window); }
  int64_t Visible(int64_t i) const { return End(i) - First(i); }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(config.head_size)); }
  const float* Query(int64_t i, int64_t head) const {
    return query + (i * config.head_count + head) * head_size();
  }
  float* Z(int64_t i, int64_t head) const { return z + (i * config.head_count + head) * head_size(); }

  // Query heads of one key/value head.
  int64_t group() const { return config.head_count / config.key_value_head_count; }

  kernels::HeadSequence Sequence(int64_t key_value_head, const float* shared, const float* own) const {
    const int64_t offset = key_value_head * head_size();
    const int64_t shared_count = item.segment->shared_length;
    return {{shared_count > 0 ? shared + offset : nullptr, shared_count},
            {own + offset, key_count() - shared_count},
            config.key_value_width()};
  }
  // Scores of a query row's heads of one key/value head, from its first query head on:
  // scores[h * stride + key], of the keys that it sees.
  void Score(int64_t i, int64_t head, float* scores, int64_t stride) const {
    kernels::ScoreRows(Query(i, head), group(), Sequence(head / group(), shared_keys, keys).From(First(i)),
                       Visible(i), head_size(), scale(), scores + First(i), stride);
  }
  void Softmax(int64_t i, float* scores) const { kernels::SoftmaxRow(scores + First(i), Visible(i)); }
  void Mix(int64_t i, int64_t head, const float* pattern, int64_t stride) const {
    kernels::MixRows(pattern + First(i), stride, group(),
                     Sequence(head / group(), shared_values, values).From(First(i)), Visible(i), head_size(),
                     Z(i, head));
  }
};

// Of the query heads of one key/value head.
void AttendGroup(const Work& work, int64_t key_value_head) {
  const int64_t head = key_value_head * work.group(), stride = work.key_count();
  std::vector<float> scores(work.group() * stride);
  for (int64_t i = 0; i < work.item.rows; ++i) {
    work.Score(i, head, scores.data(), stride);
    for (int64_t h = 0; h < work.group(); ++h) {
      work.Softmax(i, scores.data() + h * stride);
    }
    work.Mix(i, head, scores.data(), stride);
  }
}

// The same steps for all heads at once, with the scores and the pattern laid out
// for the hooks: [T, H, keys]. What the mask hides (what comes later, what is before the
// window) stays hidden, whatever
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
  auto for_each_group = [&](auto&& function) {
    for (int64_t i = 0; i < work.item.rows; ++i) {
      for (int64_t head = 0; head < heads; head += work.group()) function(i, head);
    }
  };
  auto hide = [&](float hidden) {
    for_each_row([&](int64_t i, int64_t, float* values) {
      std::fill(values, values + work.First(i), hidden);
      std::fill(values + work.End(i), values + width, hidden);
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

  for_each_group([&](int64_t i, int64_t head) { work.Score(i, head, row(i, head), width); });
  hook(HookPoint::kAttnScores, -std::numeric_limits<float>::infinity());
  for_each_row([&](int64_t i, int64_t, float* values) { work.Softmax(i, values); });
  hook(HookPoint::kPattern, 0.0f);
  for_each_group([&](int64_t i, int64_t head) { work.Mix(i, head, row(i, head), width); });
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
          z + item.first_row * config.query_width(),
          config.layers[layer].window};
}

}  // namespace

void AttendOnCpu(const ModelConfig& config, const Batch& batch, int layer, const float* query,
                 const float* key, const float* value, float* z) {
  std::vector<Work> plain;
  int64_t multiplications = 0;  // of one key/value head's query heads, over all segments
  for (const Batch::Item& item : batch.ItemsAt({HookPoint::kResidPre, layer})) {
    const Work work = PrepareWork(config, item, layer, query, key, value, z);
    if (Batch::Wants(item, {HookPoint::kAttnScores, layer}) ||
        Batch::Wants(item, {HookPoint::kPattern, layer})) {
      AttendWithHooks(work, layer);
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
    for (int64_t i = begin; i < end; ++i) AttendGroup(plain[i / groups], i % groups);
  });
}

}  // namespace mechinterp::engine
