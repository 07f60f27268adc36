#ifndef SERVICES_ENGINE_FORWARD_ATEN_ATTENTION_H_
#define SERVICES_ENGINE_FORWARD_ATEN_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>

#include "absl/functional/function_ref.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// Arithmetic::Attend by libtorch. Segments that share their keys and have as many positions (a
// sweep's runs) are attended together, others one after the other. Keeps the masks that it
// has made; for one pass.
class AtenAttention {
 public:
  AtenAttention(const ModelConfig& config, const at::Device& device) : config_(config), device_(device) {}

  // query [N, H * Dh], key and value [N, KV * Dh] of the rows that have entered at `layer`.
  // `store` is given z [count, H * Dh] of rows [first, first + count).
  using Store = absl::FunctionRef<void(int64_t first, int64_t count, const at::Tensor& z)>;
  void Attend(const Batch& batch, int layer, const at::Tensor& query, const at::Tensor& key,
              const at::Tensor& value, Store store);

  // How rows over keys lie: as many keys as the last row sees, in `width` values; what a row's window
  // shows of them (LayerConfig's).
  struct KeyLayout {
    int64_t keys = 0;
    int64_t width = 0;
    int64_t window = 0;
  };

  // For the way back, too. The hooks on a segment's scores or pattern [H, T, K].
  void HookScores(const Batch::Item& item, const HookSite& site, float hidden, at::Tensor& scores);
  // 0 where a row sees a key, -infinity where that comes later or is before its window: [T,
  // width]; the last row is at position keys - 1.
  const at::Tensor& Mask(int64_t rows, int64_t keys, int64_t width, int64_t window);
  // Puts a value where the mask hides a key from a row: values [rows, heads, width].
  static void HideFrom(int64_t rows, int64_t heads, const KeyLayout& layout, float hidden, float* values);

  const ModelConfig& config() const { return config_; }
  const at::Device& device() const { return device_; }

 private:
  struct Group;

  at::Tensor AttendGroup(const Group& group, int layer, const at::Tensor& query, const at::Tensor& key,
                         const at::Tensor& value);
  at::Tensor Pattern(const Group& group, int layer, const at::Tensor& scores, int64_t keys);

  const ModelConfig& config_;
  const at::Device device_;
  std::map<std::array<int64_t, 4>, at::Tensor> masks_;  // by rows, keys, width and window
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_ATEN_ATTENTION_H_
