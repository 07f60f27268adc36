#ifndef SERVICES_ENGINE_FORWARD_GRADIENT_PLAN_H_
#define SERVICES_ENGINE_FORWARD_GRADIENT_PLAN_H_

#include <functional>
#include <map>
#include <vector>

#include "absl/types/span.h"
#include "services/engine/interventions/hook_plan.h"

namespace mechinterp::engine {

// How something is taken back through what is not linear.
enum class BackwardRule {
  // By its derivative.
  kGradient,
  // By RelP's coefficients (Jafari et al. 2025): a norm's scale and attention's pattern are
  // constants, SiLU is its input times a constant, and each factor of a product of two bears half.
  // Value times coefficient, summed over a layer, is then the metric, where that is linear in the logits.
  kRelevance,
  // Not through the blocks at all, the last norm's scale a constant: what each thing that is added
  // to the stream does to the metric by itself (direct logit attribution, Elhage et al. 2021). Has
  // gradients of the embedding, the stream, z and the heads' results, mlp_post, and of the blocks'
  // outputs; reads nothing of the forward pass but its last rows, so it needs no tape.
  kDirect,
};

// One way back from a metric through a forward pass.
struct BackwardRun {
  BackwardRule rule = BackwardRule::kGradient;
  // The layer whose attention and MLP pass nothing back, so that only the residual stream does
  // (GradDrop, Kramar et al. 2024); -1: none.
  int dropped_layer = -1;
};

// The gradients that are wanted of a segment. Immutable; shared between threads.
struct GradientPlan {
  // Of the metric with respect to the logits of the segment's last `metric_rows` rows, row-major
  // [metric_rows, V]. Writes every element. Called in the thread that runs the pass.
  int metric_rows = 1;
  std::function<void(absl::Span<const float> logits, absl::Span<float> gradient)> metric;
  // Whether what the way back needs of the forward pass is kept of all layers, or made again layer
  // by layer, for one more forward pass and a fraction of the memory (TapeBytes). In a batch all
  // is kept where all plans say so. Results are the same bits.
  bool keeps_all_layers = true;
  // Each over the same forward pass. All are kDirect, or none is.
  std::vector<BackwardRun> runs = {{}};
  // Where gradients are wanted, and at which positions. The gradient at a site is that with
  // respect to the activation as it is after the edits there; of hook_result and the receivers'
  // inputs, head by head; of ln1, that of the stream, without heads that read an input of their own;
  // of hook_pattern, for the keys that the mask hides too, though no edit reaches these.
  std::map<HookSite, CompiledCapture> captures;

  bool is_direct() const { return !runs.empty() && runs.front().rule == BackwardRule::kDirect; }
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_GRADIENT_PLAN_H_
