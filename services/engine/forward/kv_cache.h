#ifndef SERVICES_ENGINE_FORWARD_KV_CACHE_H_
#define SERVICES_ENGINE_FORWARD_KV_CACHE_H_

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// Keys (after RoPE) and values of a stretch of positions, for every layer:
// [positions, KV, Dh] each, fp32, in the memory of the device that computes them. Grows
// by appending, layer by layer; appending within what was reserved allocates nothing
// and moves nothing.
//
// Made, asked for its lengths and let go of in any thread; a device's memory is only
// touched by the forward passes that write and read it (see released_tensors.h), one
// at a time. On the CPU readable from many threads when none writes.
class KvCache {
 public:
  explicit KvCache(const ModelConfig& config);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;
  ~KvCache();

  // What a run holds that took over another's keys and values: from `first_own_layer`
  // on, `shared_rows` of `base` and then all of `own`; in the layers before,
  // `base_rows` of `base`. Put together, layer by layer, when a pass first reads it: by
  // one pass at a time. It cannot be appended to.
  struct Parts {
    std::shared_ptr<const KvCache> base;
    int64_t base_rows = 0;
    std::shared_ptr<const KvCache> own;
    int64_t shared_rows = 0;
    int first_own_layer = 0;
  };
  KvCache(const ModelConfig& config, Parts parts);

  // What is written in all caches of this process; from any thread.
  static int64_t total_bytes() { return total_bytes_; }

  int64_t length(int layer) const;
  int64_t row_size() const { return row_size_; }
  // [length, KV, Dh] of a layer, contiguous; null (undefined) where there are none.
  const float* keys(int layer) const;  // on the CPU
  const float* values(int layer) const;
  at::Tensor KeyTensor(int layer) const { return KeyTensor(layer, length(layer)); }  // [length, KV * Dh]
  at::Tensor ValueTensor(int layer) const { return ValueTensor(layer, length(layer)); }
  // The first `rows` of the room there is, which in caches made of tensors is a multiple
  // of kRoomStep: those past the length are finite and mean nothing. So a device sees few
  // shapes, for each of which libtorch keeps something.
  static constexpr int64_t kRoomStep = 64;
  at::Tensor KeyTensor(int layer, int64_t rows) const;
  at::Tensor ValueTensor(int layer, int64_t rows) const;

  // Capacity in positions; allocated by the first Append. On the CPU memory that is not
  // written to yet is only promised by the system, so a generous guess costs little.
  void Reserve(int64_t positions) { reserved_ = positions; }

  void Append(int layer, const float* keys, const float* values, int64_t rows);
  // [rows, KV * Dh] each, on the device that the cache then lies on.
  void Append(int layer, const at::Tensor& keys, const at::Tensor& values);

  // Forgets what comes after the first so many positions.
  void Truncate(int64_t positions);

 private:
  struct Layer {
    at::Tensor keys;  // [capacity, KV * Dh]
    at::Tensor values;
    int64_t length = 0;
  };

  // Room for `rows` more; if it has to be made, for `expected` rows in all, and a multiple
  // of `step`.
  void Grow(Layer& layer, int64_t rows, int64_t expected, int64_t step,
            const at::TensorOptions& options) const;
  const Layer& Joined(int layer) const;
  void Count(int64_t rows) const;

  inline static std::atomic<int64_t> total_bytes_ = 0;

  const int64_t row_size_;
  const std::optional<Parts> parts_;
  int64_t reserved_ = 0;
  mutable std::vector<Layer> layers_;  // of a joined cache: those that were read
  mutable int64_t bytes_ = 0;
};

// Bytes of the keys and values of so many positions, in all layers.
int64_t KeyValueBytes(const ModelConfig& config, int64_t positions);

// The most bytes that a cache takes which reserves `reserved` positions and grows to
// `positions`: growing doubles it, a layer at a time.
int64_t GrowingCacheBytes(const ModelConfig& config, int64_t reserved, int64_t positions);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_KV_CACHE_H_
