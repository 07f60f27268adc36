#ifndef SERVICES_ENGINE_FORWARD_HEAD_H_
#define SERVICES_ENGINE_FORWARD_HEAD_H_

#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"
#include "services/engine/forward/norm_scales.h"
#include "services/engine/model.h"

namespace mechinterp::engine {

// The end of a forward pass: the last norm and the logits, of the rows of the residual stream
// [N, D] that somebody reads, into the segments; `norm_scales` tell why logits are not finite.
// False when nobody reads any. Throws what the arithmetic does.
bool RunHead(const Model& model, const Batch& batch, const Rows& residual, const NormScales& norm_scales,
             Arithmetic& math);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_HEAD_H_
