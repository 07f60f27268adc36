#ifndef SERVICES_ENGINE_FORWARD_HEAD_RESULTS_H_
#define SERVICES_ENGINE_FORWARD_HEAD_RESULTS_H_

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// One head's share of attn_out: its columns of z [N, H * Dh], times those of W_O; in
// Slot::kHeadShare [N, D].
Rows HeadResult(const ModelConfig& config, const Rows& z, int head, const LinearWeight& output,
                Arithmetic& math);

// hook_result: each head's share of attn_out, for the segments that have a hook there. z [N,
// H * Dh] went into `attn_out` [N, D] = z W_O (+ bias, of which no head has a share); what an
// edit changes of the shares is added to attn_out, so that rows which no edit touches keep
// their bits.
void HookHeadResults(const ModelConfig& config, const Batch& batch, int layer, const Rows& z,
                     const LinearWeight& output, const Rows& attn_out, Arithmetic& math);

// The way back, of run `run`: z_gradient [N, H * Dh] has come from attn_out_gradient [N, D], which
// is the gradient with respect to each head's share, too. Heads whose share was edited have
// theirs from what goes through the edit.
void HookHeadResultGradients(const ModelConfig& config, const Batch& batch, int layer, int run,
                             const LinearWeight& output, const Rows& attn_out_gradient,
                             const Rows& z_gradient, Arithmetic& math);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_HEAD_RESULTS_H_
