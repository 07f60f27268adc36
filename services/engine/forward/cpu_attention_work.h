#ifndef SERVICES_ENGINE_FORWARD_CPU_ATTENTION_WORK_H_
#define SERVICES_ENGINE_FORWARD_CPU_ATTENTION_WORK_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "services/engine/forward/batch.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/kernels/rows.h"

namespace mechinterp::engine {

// One segment's attention at one layer, on the CPU: where its rows are, what each sees, and the
// steps of one of them.
struct AttentionWork {
  const ModelConfig& config;
  const Batch::Item& item;
  const float* query;  // [T, H, Dh]
  const float* keys;   // own positions, [_, KV, Dh]
  const float* values;
  const float* shared_keys;  // positions before them
  const float* shared_values;
  int64_t window;  // LayerConfig's

  int64_t head_size() const { return config.head_size; }
  int64_t key_count() const { return item.segment->first_position + item.rows; }
  // Query row i sees the keys in [First(i), End(i)): itself and what is before, or what of
  // that is in its window.
  int64_t End(int64_t i) const { return item.segment->first_position + i + 1; }
  int64_t First(int64_t i) const { return window == 0 ? 0 : std::max<int64_t>(0, End(i) - window); }
  int64_t Visible(int64_t i) const { return End(i) - First(i); }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(config.head_size)); }
  // Where a query row's head is in what is laid out as queries are.
  int64_t At(int64_t i, int64_t head) const { return (i * config.head_count + head) * head_size(); }

  // Query heads of one key/value head.
  int64_t group() const { return config.head_count / config.key_value_head_count; }

  kernels::HeadSequence Sequence(int64_t key_value_head, const float* shared, const float* own) const {
    const int64_t offset = key_value_head * head_size();
    const int64_t shared_count = item.segment->shared_length;
    return {{shared_count > 0 ? shared + offset : nullptr, shared_count},
            {own + offset, key_count() - shared_count},
            config.key_value_width()};
  }

  // Of a query row's heads of one key/value head, from its query head `head` on: their products
  // with the keys that the row sees, times `factor`, to scores[h * stride + key]; and the sums of
  // the values that it sees, weighted by weights[h * stride + key], to sums [group, Dh].
  void MultiplyKeys(int64_t i, int64_t head, const float* vectors, float factor, float* scores,
                    int64_t stride) const {
    Multiply(i, head, vectors, shared_keys, keys, factor, scores, stride);
  }
  void MultiplyValues(int64_t i, int64_t head, const float* vectors, float* scores, int64_t stride) const {
    Multiply(i, head, vectors, shared_values, values, 1, scores, stride);
  }
  void MixKeys(int64_t i, int64_t head, const float* weights, int64_t stride, float* sums) const {
    Mix(i, head, weights, stride, shared_keys, keys, sums);
  }
  void MixValues(int64_t i, int64_t head, const float* weights, int64_t stride, float* sums) const {
    Mix(i, head, weights, stride, shared_values, values, sums);
  }

  void Score(int64_t i, int64_t head, float* scores, int64_t stride) const {
    MultiplyKeys(i, head, query + At(i, head), scale(), scores, stride);
  }
  void Softmax(int64_t i, float* scores) const { kernels::SoftmaxRow(scores + First(i), Visible(i)); }

 private:
  void Multiply(int64_t i, int64_t head, const float* vectors, const float* shared, const float* own,
                float factor, float* scores, int64_t stride) const {
    kernels::ScoreRows(vectors, group(), Sequence(head / group(), shared, own).From(First(i)), Visible(i),
                       head_size(), factor, scores + First(i), stride);
  }
  void Mix(int64_t i, int64_t head, const float* weights, int64_t stride, const float* shared,
           const float* own, float* sums) const {
    kernels::MixRows(weights + First(i), stride, group(),
                     Sequence(head / group(), shared, own).From(First(i)), Visible(i), head_size(), sums);
  }
};

// Scores, or what has their layout, of all heads of a segment: [T, H, width]. The width is that of
// the keys; in a chunk of a segment, of all the keys that there will be.
class ScoresOfSegment {
 public:
  explicit ScoresOfSegment(const AttentionWork& work)
      : work_(work),
        width_(std::max<int64_t>(work.key_count(), work.item.segment->key_width)),
        values_(work.item.rows * work.config.head_count * width_) {}

  int64_t width() const { return width_; }
  float* data() { return values_.data(); }
  float* Row(int64_t i, int64_t head) {
    return values_.data() + (i * work_.config.head_count + head) * width_;
  }

  // function(i, head, row) for each row; function(i, first head) for each row and key/value head.
  // Positions on several threads, or one after the other where what they make adds up.
  template <typename Function>
  void ForEachRow(Function&& function) {
    ForEachPosition([&](int64_t i) {
      for (int64_t head = 0; head < work_.config.head_count; ++head) function(i, head, Row(i, head));
    });
  }
  template <typename Function>
  void ForEachGroup(Function&& function) {
    ForEachPosition([&](int64_t i) { GroupsOf(i, function); });
  }
  template <typename Function>
  void ForEachGroupInOrder(Function&& function) {
    for (int64_t i = 0; i < work_.item.rows; ++i) GroupsOf(i, function);
  }
  // Puts a value where a row does not see a key.
  void Hide(float hidden) {
    ForEachRow([&](int64_t i, int64_t, float* values) {
      std::fill(values, values + work_.First(i), hidden);
      std::fill(values + work_.End(i), values + width_, hidden);
    });
  }
  // A segment's edits at a site; what is hidden stays so, whatever an edit put there.
  void Edit(const HookSite& site, float hidden) {
    Hide(hidden);
    if (!Batch::Edits(work_.item, site)) return;
    Batch::EditItem(work_.item, site, data(), work_.config.head_count, width_);
    Hide(hidden);
  }

 private:
  template <typename Function>
  void GroupsOf(int64_t i, Function& function) {
    for (int64_t head = 0; head < work_.config.head_count; head += work_.group()) function(i, head);
  }
  template <typename Function>
  void ForEachPosition(Function&& function) {
    constexpr int64_t kValuesWorthAThread = 1 << 14;
    const int64_t grain = 1 + kValuesWorthAThread / (work_.config.head_count * width_);
    kernels::ParallelFor(0, work_.item.rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) function(i);
    });
  }

  const AttentionWork work_;
  const int64_t width_;
  std::vector<float> values_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_CPU_ATTENTION_WORK_H_
