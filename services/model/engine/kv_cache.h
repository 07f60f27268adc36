#ifndef SERVICES_MODEL_ENGINE_KV_CACHE_H_
#define SERVICES_MODEL_ENGINE_KV_CACHE_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "services/model/engine/model_config.h"

namespace mechinterp::engine {

// Keys (after RoPE) and values of a stretch of positions, for every layer:
// [positions, KV, Dh] each. Grows by appending, layer by layer; appending within
// what was reserved allocates nothing and moves nothing. Written by one forward
// pass at a time; readable from many threads when none writes.
class KvCache {
 public:
  explicit KvCache(const ModelConfig& config)
      : row_size_(config.key_value_width()), layers_(config.layer_count) {}
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;
  ~KvCache() { total_bytes_ -= bytes_; }

  // What all caches of this process hold; from any thread.
  static int64_t total_bytes() { return total_bytes_; }

  int64_t length(int layer) const { return static_cast<int64_t>(layers_[layer].keys.size()) / row_size_; }
  int64_t row_size() const { return row_size_; }
  const float* keys(int layer) const { return layers_[layer].keys.data(); }
  const float* values(int layer) const { return layers_[layer].values.data(); }

  // Makes room for so many positions in all. Memory that is not written to yet is
  // only promised by the system, so a generous guess costs little.
  void Reserve(int64_t positions) {
    for (Layer& layer : layers_) {
      layer.keys.reserve(positions * row_size_);
      layer.values.reserve(positions * row_size_);
    }
  }

  void Append(int layer, const float* keys, const float* values, int64_t rows) {
    Layer& stored = layers_[layer];
    stored.keys.insert(stored.keys.end(), keys, keys + rows * row_size_);
    stored.values.insert(stored.values.end(), values, values + rows * row_size_);
    const int64_t added = 2 * rows * row_size_ * static_cast<int64_t>(sizeof(float));
    bytes_ += added;
    total_bytes_ += added;
  }

 private:
  struct Layer {
    std::vector<float> keys;
    std::vector<float> values;
  };
  inline static std::atomic<int64_t> total_bytes_ = 0;

  const int64_t row_size_;
  std::vector<Layer> layers_;
  int64_t bytes_ = 0;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_KV_CACHE_H_
