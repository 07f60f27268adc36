#ifndef SERVICES_ENGINE_FORWARD_BACKWARD_H_
#define SERVICES_ENGINE_FORWARD_BACKWARD_H_

#include "absl/functional/function_ref.h"
#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"
#include "services/engine/forward/forward.h"
#include "services/engine/forward/tape.h"
#include "services/engine/model.h"

namespace mechinterp::engine {

// The model, taken back: from the metrics of a batch's segments, which all have a gradient plan,
// to the gradients that the plans want. By hand, operation by operation, without gradients of
// weights: products by the transposed matrices read the weights as they are packed. A segment's
// gradients do not depend on which others are in the batch.
//
// After `forward` ran with `tape`. Throws what the arithmetic does. `abandoned` is asked between
// layers; false when it said so.
bool BackwardPass(const Model& model, const Batch& batch, ForwardPass& forward, const Tape& tape,
                  Arithmetic& arithmetic, absl::FunctionRef<bool()> abandoned);

// The same where all plans are direct (BackwardRule::kDirect), of the rows alone whose logits the
// metrics read: for each layer the products of these with two transposed matrices.
bool DirectBackwardPass(const Model& model, const Batch& batch, Arithmetic& arithmetic,
                        absl::FunctionRef<bool()> abandoned);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_BACKWARD_H_
