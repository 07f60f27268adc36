#ifndef SERVICES_ENGINE_FORWARD_SEGMENT_H_
#define SERVICES_ENGINE_FORWARD_SEGMENT_H_

#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "services/engine/base/host_tensor.h"
#include "services/engine/base/token_id.h"
#include "services/engine/forward/circuit_plan.h"
#include "services/engine/forward/gradient_plan.h"
#include "services/engine/interventions/hook_plan.h"

namespace mechinterp::engine {

class KvCache;

// Rows of a segment whose logits are wanted.
enum class LogitsRows { kNone, kLast, kAll };

// A run of positions of one sequence to be taken through the model: what every
// forward pass is made of. Prefill, decoding and patched runs are only
// different segments. A segment belongs to one caller; the forward pass writes
// its results into it.
struct Segment {
  // What to start from: tokens, or the residual stream [T, D] that enters
  // `entry_layer` (layer_count: that leaves the last block). Within a block, what is to be
  // added to the stream there is still being made: at kZ, where resid_pre is the stream, and
  // `branch` is z [T, H * Dh]; or at kMlpPost, of resid_mid and mlp_post [T, F].
  std::vector<TokenId> tokens;
  HostTensor residual;
  HostTensor branch;
  int entry_layer = 0;
  HookPoint entry_point = HookPoint::kResidPre;

  // Absolute position of the first row: shared_length + cache length.
  int first_position = 0;
  // Length of the prompt that this is a part of, or continues; 0: it ends with this segment.
  int prompt_length = 0;
  // Keys that rows of scores and patterns are laid out for, where hooks see them: those that the
  // whole of a segment has of which this is a chunk. Those to come are hidden, as by the mask.
  // 0: those that there are.
  int key_width = 0;
  // Keys and values of positions [0, shared_length), read only.
  std::shared_ptr<const KvCache> shared;
  int shared_length = 0;
  // Those of the positions after them; this run's are appended. Null when
  // nothing will come after this segment.
  std::shared_ptr<KvCache> cache;

  std::shared_ptr<const HookPlan> plan;  // null: nothing to do
  LogitsRows logits_rows = LogitsRows::kNone;
  // Null: forward only. A segment with one runs whole, in one pass: unless it is a direct one, it
  // has neither `shared` nor `cache`, and begins at position 0 where layer 0 does.
  std::shared_ptr<const GradientPlan> gradient;
  // Null: through the whole model. A segment with one runs whole, from tokens at position 0, and has
  // neither plan, gradient, nor caches.
  std::shared_ptr<const CircuitPlan> circuit;

  // Results. logits [rows, V]; activations as in the plan's captures.
  HostTensor logits;
  // FailedPrecondition when logits are not finite; says of which position, and where on the
  // way to them values first were not.
  absl::Status logits_status;
  std::map<HookSite, RecordedActivation> activations;
  // Of each of the gradient plan's runs.
  std::vector<std::map<HookSite, RecordedActivation>> gradients;

  int PromptLength() const { return prompt_length > 0 ? prompt_length : first_position + length(); }
  int length() const {
    return static_cast<int>(tokens.empty() ? (residual.shape.empty() ? 0 : residual.shape[0])
                                           : tokens.size());
  }
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_SEGMENT_H_
