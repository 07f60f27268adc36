#ifndef SERVICES_ENGINE_FORWARD_HEAD_GRADIENT_H_
#define SERVICES_ENGINE_FORWARD_HEAD_GRADIENT_H_

#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"
#include "services/engine/model.h"

namespace mechinterp::engine {

// RunHead taken back: writes the gradients of the segments' metrics with respect to the residual
// stream that left the last block, [N, D]. After the pass's RunHead, whose Slot::kHeadRows it
// reads.
void RunHeadBackward(const Model& model, const Batch& batch, int run, const Rows& gradient, Arithmetic& math);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_HEAD_GRADIENT_H_
