#include "services/engine/forward/aten_attention.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "services/engine/device/transfer.h"
#include "services/engine/forward/kv_cache.h"

namespace mechinterp::engine {

namespace {

// The keys [first, end) that a query at `position` sees.
struct VisibleKeys {
  VisibleKeys(int64_t position, int64_t window)
      : first(window == 0 ? 0 : std::max<int64_t>(0, position + 1 - window)), end(position + 1) {}
  int64_t first;
  int64_t end;
};

}  // namespace

// Segments that are attended together: neighbours in the batch, of the same length, over
// the same shared keys, without a cache of their own and without hooks; or one segment.
struct AtenAttention::Group {
  std::vector<const Batch::Item*> items;
  bool has_hooks = false;

  const Segment& segment() const { return *items[0]->segment; }
  int64_t first_row() const { return items[0]->first_row; }
  int64_t rows() const { return items[0]->rows; }
  int64_t count() const { return static_cast<int64_t>(items.size()); }

  bool Takes(const Batch::Item& item, bool hooks) const {
    const Segment& other = *item.segment;
    return !hooks && !has_hooks && item.rows == rows() && segment().cache == nullptr &&
           other.cache == nullptr && other.shared == segment().shared &&
           other.shared_length == segment().shared_length && item.first_position == items[0]->first_position;
  }
};

void AtenAttention::Attend(const Batch& batch, int layer, const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& value, Store store) {
  std::vector<Group> groups;
  for (const Batch::Item& item : batch.ItemsAt({HookPoint::kResidPre, layer})) {
    const bool hooks = Batch::Wants(item, {HookPoint::kAttnScores, layer}) ||
                       Batch::Wants(item, {HookPoint::kPattern, layer});
    if (groups.empty() || !groups.back().Takes(item, hooks)) groups.push_back({{}, hooks});
    groups.back().items.push_back(&item);
  }
  for (const Group& group : groups) {
    const int64_t first = group.first_row(), rows = group.count() * group.rows();
    store(first, rows,
          AttendGroup(group, layer, query.narrow(0, first, rows), key.narrow(0, first, rows),
                      value.narrow(0, first, rows)));
  }
}

// Shapes: B segments of a group, T rows of each, H heads in
// KV groups of G, Dh head size; S keys that the segments share, P of their own, and
// K = S + P. Products are of three dimensions, with contiguous operands.
at::Tensor AtenAttention::AttendGroup(const Group& group, int layer, const at::Tensor& query,
                                      const at::Tensor& key, const at::Tensor& value) {
  const int64_t b = group.count(), t = group.rows(), kv = config_.key_value_head_count,
                g = config_.head_count / kv, dh = config_.head_size;
  const Segment& segment = group.segment();
  const int64_t shared = segment.shared_length;
  at::Tensor own_keys = key, own_values = value;
  int64_t keys = shared + t;  // that the last row sees
  if (segment.cache != nullptr) {
    KvCache& cache = *segment.cache;
    cache.Append(layer, key, value);
    keys = shared + cache.length(layer);
    // Continuations grow by a key a step: they are padded, so that a step has the shape of
    // the one before. The mask hides what is past the end.
    constexpr int64_t kStep = KvCache::kRoomStep;
    const int64_t rows =
        group.has_hooks ? cache.length(layer) : (cache.length(layer) + kStep - 1) / kStep * kStep;
    own_keys = cache.KeyTensor(layer, rows);
    own_values = cache.ValueTensor(layer, rows);
  }
  const int64_t own = own_keys.size(0) / b;
  // [KV, B, G, T, Dh]: one product over all segments with what they share, one for each
  // with its own.
  const at::Tensor q = query.reshape({b, t, kv, g, dh}).permute({2, 0, 3, 1, 4}).contiguous();
  at::Tensor scores =
      at::bmm(q.view({kv * b, g * t, dh}),
              own_keys.reshape({b, own, kv, dh}).permute({2, 0, 3, 1}).contiguous().view({kv * b, dh, own}));
  if (shared > 0) {
    const at::Tensor before = segment.shared->KeyTensor(layer)
                                  .narrow(0, 0, shared)
                                  .view({shared, kv, dh})
                                  .permute({1, 2, 0})
                                  .contiguous();
    scores = at::cat({at::bmm(q.view({kv, b * g * t, dh}), before).view({kv * b, g * t, shared}), scores}, 2);
  }
  scores.mul_(1.0f / std::sqrt(static_cast<float>(dh)));
  const at::Tensor pattern = Pattern(group, layer, scores.view({kv * b * g, t, shared + own}), keys)
                                 .view({kv * b, g * t, shared + own});
  at::Tensor mixed = at::bmm(
      pattern.narrow(2, shared, own).contiguous(),
      own_values.reshape({b, own, kv, dh}).permute({2, 0, 1, 3}).contiguous().view({kv * b, own, dh}));
  if (shared > 0) {
    const at::Tensor before = segment.shared->ValueTensor(layer)
                                  .narrow(0, 0, shared)
                                  .view({shared, kv, dh})
                                  .permute({1, 0, 2})
                                  .contiguous();
    mixed = mixed.add(at::bmm(pattern.narrow(2, 0, shared).contiguous().view({kv, b * g * t, shared}), before)
                          .view({kv * b, g * t, dh}));
  }
  return mixed.view({kv, b, g, t, dh}).permute({1, 3, 0, 2, 4}).contiguous();
}

// Softmax of the scores [_, T, K] that the mask leaves, the last row being the one
// that sees `keys`, with the hooks before and after. With hooks the group is one segment
// and the scores are [H, T, K].
at::Tensor AtenAttention::Pattern(const Group& group, int layer, const at::Tensor& scores, int64_t keys) {
  const int64_t rows = scores.size(1), width = scores.size(2);
  const int64_t window = config_.layers[layer].window;
  const bool hides = rows > 1 || keys < width || (window > 0 && window < keys);
  at::Tensor masked = hides ? scores.add(Mask(rows, keys, width, window)) : scores;
  if (!group.has_hooks) return at::softmax(masked, 2);
  HookScores(*group.items[0], {HookPoint::kAttnScores, layer}, -std::numeric_limits<float>::infinity(),
             masked);
  at::Tensor pattern = at::softmax(masked, 2);
  HookScores(*group.items[0], {HookPoint::kPattern, layer}, 0.0f, pattern);
  return pattern;
}

void AtenAttention::HideFrom(int64_t rows, int64_t heads, const KeyLayout& layout, float hidden,
                             float* values) {
  for (int64_t i = 0; i < rows * heads; ++i) {
    const VisibleKeys visible(layout.keys - rows + i / heads, layout.window);
    float* const row = values + i * layout.width;
    std::fill(row, row + visible.first, hidden);
    std::fill(row + visible.end, row + layout.width, hidden);
  }
}

// The hooks see [T, H, width]: the keys, and in a chunk of a segment those that are to come. What
// the mask hides stays hidden, whatever an edit put there.
void AtenAttention::HookScores(const Batch::Item& item, const HookSite& site, float hidden,
                               at::Tensor& scores) {
  if (!Batch::Wants(item, site)) return;
  const int64_t heads = config_.head_count, rows = scores.size(1), keys = scores.size(2);
  const int64_t width = std::max<int64_t>(keys, item.segment->key_width);
  at::Tensor host = ToHost(scores.permute({1, 0, 2}).contiguous());
  if (width > keys) {
    const at::Tensor wider = at::empty({rows, heads, width}, at::kFloat);
    wider.fill_(hidden);
    wider.narrow(2, 0, keys).copy_(host);
    host = wider;
  }
  auto* values = host.data_ptr<float>();
  if (Batch::Edits(item, site)) {
    Batch::EditItem(item, site, values, heads, width);
    HideFrom(rows, heads, {keys, width, config_.layers[site.layer].window}, hidden, values);
    scores = ToDevice(host.narrow(2, 0, keys).contiguous(), device_).permute({1, 0, 2}).contiguous();
  }
  Batch::CaptureItem(item, site, values, heads, width);
}

const at::Tensor& AtenAttention::Mask(int64_t rows, int64_t keys, int64_t width, int64_t window) {
  at::Tensor& mask = masks_[{rows, keys, width, window}];
  if (mask.defined()) return mask;
  std::vector<float> values(rows * width, -std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < rows; ++i) {
    const VisibleKeys visible(keys - rows + i, window);
    std::fill(values.begin() + i * width + visible.first, values.begin() + i * width + visible.end, 0.0f);
  }
  at::Tensor host = at::empty({rows, width}, at::kFloat);
  std::memcpy(host.data_ptr<float>(), values.data(), host.nbytes());
  mask = ToDevice(host, device_);
  return mask;
}

}  // namespace mechinterp::engine
