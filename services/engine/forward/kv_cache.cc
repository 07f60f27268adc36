#include "services/engine/forward/kv_cache.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "services/engine/device/released_tensors.h"

namespace mechinterp::engine {

KvCache::KvCache(const ModelConfig& config)
    : row_size_(config.key_value_width()), layers_(config.layer_count()) {}

KvCache::KvCache(const ModelConfig& config, Parts parts)
    : row_size_(config.key_value_width()), parts_(std::move(parts)), layers_(config.layer_count()) {}

KvCache::~KvCache() {
  total_bytes_ -= bytes_;
  std::vector<at::Tensor> tensors;
  for (Layer& layer : layers_) {
    if (!layer.keys.defined() || layer.keys.is_cpu()) continue;
    tensors.push_back(std::move(layer.keys));
    tensors.push_back(std::move(layer.values));
  }
  ReleaseLater(std::move(tensors));
}

int64_t KvCache::length(int layer) const {
  if (!parts_) return layers_[layer].length;
  if (layer < parts_->first_own_layer) return parts_->base_rows;
  return parts_->shared_rows + parts_->own->length(layer);
}

const float* KvCache::keys(int layer) const {
  const Layer& stored = Joined(layer);
  return stored.keys.defined() ? stored.keys.data_ptr<float>() : nullptr;
}

const float* KvCache::values(int layer) const {
  const Layer& stored = Joined(layer);
  return stored.values.defined() ? stored.values.data_ptr<float>() : nullptr;
}

at::Tensor KvCache::KeyTensor(int layer, int64_t rows) const {
  const Layer& stored = Joined(layer);
  return stored.keys.defined() ? stored.keys.narrow(0, 0, rows) : stored.keys;
}

at::Tensor KvCache::ValueTensor(int layer, int64_t rows) const {
  const Layer& stored = Joined(layer);
  return stored.values.defined() ? stored.values.narrow(0, 0, rows) : stored.values;
}

void KvCache::Append(int layer, const float* keys, const float* values, int64_t rows) {
  Layer& stored = layers_[layer];
  Grow(stored, rows, reserved_, 1, at::TensorOptions(at::kFloat));
  const int64_t offset = stored.length * row_size_, count = rows * row_size_;
  std::memcpy(stored.keys.data_ptr<float>() + offset, keys, count * sizeof(float));
  std::memcpy(stored.values.data_ptr<float>() + offset, values, count * sizeof(float));
  stored.length += rows;
  Count(rows);
}

void KvCache::Append(int layer, const at::Tensor& keys, const at::Tensor& values) {
  const int64_t rows = keys.size(0);
  Layer& stored = layers_[layer];
  // A device's memory is taken at once, so little of what was reserved is taken ahead.
  const int64_t ahead = std::min(reserved_, stored.length + rows + 4 * kRoomStep);
  Grow(stored, rows, ahead, kRoomStep, keys.options());
  stored.keys.narrow(0, stored.length, rows).copy_(keys);
  stored.values.narrow(0, stored.length, rows).copy_(values);
  stored.length += rows;
  Count(rows);
}

void KvCache::Truncate(int64_t positions) {
  for (Layer& layer : layers_) {
    Count(std::min<int64_t>(0, positions - layer.length));
    layer.length = std::min(layer.length, positions);
  }
}

void KvCache::Grow(Layer& layer, int64_t rows, int64_t expected, int64_t step,
                   const at::TensorOptions& options) const {
  const int64_t needed = layer.length + rows;
  const int64_t capacity = layer.keys.defined() ? layer.keys.size(0) : 0;
  if (needed <= capacity) return;
  const int64_t room = (std::max({needed, expected, 2 * capacity}) + step - 1) / step * step;
  auto larger = [&](const at::Tensor& stored) {
    // What is read past the length must be finite.
    const at::Tensor fresh =
        step > 1 ? at::zeros({room, row_size_}, options) : at::empty({room, row_size_}, options);
    if (layer.length > 0) fresh.narrow(0, 0, layer.length).copy_(stored.narrow(0, 0, layer.length));
    return fresh;
  };
  // Both or, where there is no memory, none.
  at::Tensor keys = larger(layer.keys), values = larger(layer.values);
  layer.keys = std::move(keys);
  layer.values = std::move(values);
}

// Of a joined cache: puts the layer together if nobody has asked for it yet.
const KvCache::Layer& KvCache::Joined(int layer) const {
  Layer& stored = layers_[layer];
  if (!parts_ || stored.length > 0) return stored;
  Layer joined;
  auto append = [&](const KvCache& part, int64_t rows) {
    if (rows == 0) return;
    const at::Tensor keys = part.KeyTensor(layer, rows), values = part.ValueTensor(layer, rows);
    Grow(joined, rows, length(layer), 1, keys.options());
    joined.keys.narrow(0, joined.length, rows).copy_(keys);
    joined.values.narrow(0, joined.length, rows).copy_(values);
    joined.length += rows;
  };
  const bool own = layer >= parts_->first_own_layer;
  append(*parts_->base, own ? parts_->shared_rows : parts_->base_rows);
  if (own) append(*parts_->own, parts_->own->length(layer));
  stored = std::move(joined);
  Count(stored.length);
  return stored;
}

void KvCache::Count(int64_t rows) const {
  const int64_t bytes = 2 * rows * row_size_ * static_cast<int64_t>(sizeof(float));
  bytes_ += bytes;
  total_bytes_ += bytes;
}

int64_t KeyValueBytes(const ModelConfig& config, int64_t positions) {
  return 2 * positions * config.layer_count() * config.key_value_width() *
         static_cast<int64_t>(sizeof(float));
}

int64_t GrowingCacheBytes(const ModelConfig& config, int64_t reserved, int64_t positions) {
  int64_t capacity = std::max<int64_t>(1, reserved), before = 0;
  while (capacity < positions) {
    before = capacity;
    capacity *= 2;
  }
  // While the last layer grows, what it had is there too.
  return KeyValueBytes(config, capacity) + KeyValueBytes(config, before) / std::max(1, config.layer_count());
}

}  // namespace mechinterp::engine
