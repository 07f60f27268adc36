#ifndef SERVICES_ENGINE_FORWARD_HOOKED_ARITHMETIC_H_
#define SERVICES_ENGINE_FORWARD_HOOKED_ARITHMETIC_H_

#include <ATen/core/Tensor.h>

#include <initializer_list>

#include "absl/functional/function_ref.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// The steps that a forward pass repeats, on the rows of one batch, with the batch's edits and
// captures in their places. For one pass; throws what the arithmetic does.
class HookedArithmetic {
 public:
  HookedArithmetic(const ModelConfig& config, const Batch& batch, Arithmetic& arithmetic)
      : config_(config), batch_(batch), math_(arithmetic) {}

  // Applies the batch's edits and captures at a point.
  void Hook(HookPoint point, int layer, const Rows& values);

  // For a point that stands on a branch off `x`: where anybody has a hook there a copy of x,
  // hooked, in Slot::kReceiverInput; else x itself.
  Rows HookCopy(HookPoint point, int layer, const Rows& x);

  // x w^T + bias, for one or several weights of one input, each in its slot.
  void Project(const Rows& x, std::initializer_list<Arithmetic::Product> products);
  Rows Project(const Rows& x, const LinearWeight& weight, Slot slot);
  // Of outputs [first, first + count) alone: with the same bits.
  Rows ProjectPart(const Rows& x, const LinearWeight& weight, Slot slot, int64_t first, int64_t count);

  // RMSNorm (Zhang & Sennrich 2019): x / rms(x) * gain, with hooks between, in
  // Slot::kNormalized.
  Rows Normalize(const Rows& x, const at::Tensor& gain, HookPoint scale_point, HookPoint normalized_point,
                 int layer);
  // The same of one item's rows [T, D], with its edits and without captures.
  Rows NormalizeItem(const Batch::Item& item, const Rows& x, const at::Tensor& gain, HookPoint scale_point,
                     HookPoint normalized_point, int layer);
  // The same without hooks, for each head of each row [N, heads * Dh], in place; gain [Dh].
  void NormalizeHeads(const Rows& x, int64_t heads, const at::Tensor& gain);

 private:
  // RMSNorm with something done between: hook(point, rows).
  Rows NormalizeWith(const Rows& x, const at::Tensor& gain, HookPoint scale_point, HookPoint normalized_point,
                     absl::FunctionRef<void(HookPoint, const Rows&)> hook);
  float epsilon() const { return static_cast<float>(config_.rms_norm_epsilon); }

  const ModelConfig& config_;
  const Batch& batch_;
  Arithmetic& math_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_HOOKED_ARITHMETIC_H_
