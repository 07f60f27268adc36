#ifndef SERVICES_ENGINE_FORWARD_RECEIVER_INPUTS_H_
#define SERVICES_ENGINE_FORWARD_RECEIVER_INPUTS_H_

#include "services/engine/forward/backward_steps.h"
#include "services/engine/forward/hooked_arithmetic.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {

// hook_q_input, hook_k_input, hook_v_input: the residual stream as each head's query, key or
// value reads it, before the norm; for the segments that have a hook there. `residual` [N, D]
// has been projected to Slot::kQuery, kKey and kValue. A head whose input an edit touches is
// normalized and projected anew from its own input, with the edits that ln1 has; the other
// heads, and what anybody captures of ln1, stay as they are. Overwrites Slot::kScale and
// Slot::kNormalized.
void HookReceiverInputs(const ModelConfig& config, const Batch& batch, int layer, const Rows& residual,
                        const LayerWeights& weights, HookedArithmetic& steps, Arithmetic& math);

// The way back, of run `run`, from Slot::kQueryGradient, kKeyGradient and kValueGradient: records
// the gradients with respect to single inputs. Heads that read an input of their own add what
// comes through its edits to `gradient` [N, D], that of the stream, and are set to zero in those
// slots, since they did not read what the others did.
void HookReceiverInputGradients(const ModelConfig& config, const Batch& batch, int layer, int run,
                                const Rows& residual, const LayerWeights& weights, const Rows& gradient,
                                BackwardSteps& steps, Arithmetic& math);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_RECEIVER_INPUTS_H_
