#ifndef SERVICES_ENGINE_FORWARD_BACKWARD_STEPS_H_
#define SERVICES_ENGINE_FORWARD_BACKWARD_STEPS_H_

#include <ATen/core/Tensor.h>

#include "absl/functional/function_ref.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// HookedArithmetic's steps, taken back, for run `run` of the plans of a batch whose segments all
// have one. For one pass; throws what the arithmetic does.
class BackwardSteps {
 public:
  BackwardSteps(const ModelConfig& config, const Batch& batch, int run, Arithmetic& arithmetic)
      : config_(config), batch_(batch), run_(run), math_(arithmetic) {}

  // Records what is wanted of the gradient at a point, and takes it through the edits there.
  void Hook(HookPoint point, int layer, const Rows& gradient);

  // Sets the rows of those segments to zero whose run drops the layer.
  void Drop(int layer, const Rows& gradient);

  // From the gradient with respect to a norm's output to that with respect to its input x, in
  // place.
  void Normalize(const Rows& x, const at::Tensor& gain, HookPoint scale_point, HookPoint normalized_point,
                 int layer, const Rows& gradient);
  // The same of one item's rows, of a head that reads an input of its own: without records.
  void NormalizeItem(const Batch::Item& item, const Rows& x, const at::Tensor& gain, HookPoint scale_point,
                     HookPoint normalized_point, int layer, const Rows& gradient);
  // The same for each head of each row [N, heads * Dh], without hooks.
  void NormalizeHeads(const Rows& x, int64_t heads, const at::Tensor& gain, const Rows& gradient);

  // Of SiLU(gate) * up, to Slot::kGateGradient and kUpGradient.
  void SiluMultiply(const Rows& gate, const Rows& up, const Rows& gradient);

 private:
  // What is done at a point with an item's rows [rows, 1, width]; true when it changed them.
  using ItemHook = absl::FunctionRef<bool(const Batch::Item&, const HookSite&, float* data, int64_t width)>;
  struct NormSites {
    HookSite scale, normalized;
  };
  void Normalize(const Rows& x, const at::Tensor& gain, const NormSites& sites, const Rows& gradient,
                 absl::Span<const Batch::Item> items, bool records);
  void HookItems(absl::Span<const Batch::Item> items, const HookSite& site, const Rows& rows,
                 ItemHook function);

  // Calls function(rule, first row, rows) for neighbours of one rule.
  void ForEachRule(absl::FunctionRef<void(BackwardRule rule, int64_t first, int64_t count)> function) const;
  float epsilon() const { return static_cast<float>(config_.rms_norm_epsilon); }

  const ModelConfig& config_;
  const Batch& batch_;
  const int run_;
  Arithmetic& math_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_BACKWARD_STEPS_H_
