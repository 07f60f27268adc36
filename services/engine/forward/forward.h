#ifndef SERVICES_ENGINE_FORWARD_FORWARD_H_
#define SERVICES_ENGINE_FORWARD_FORWARD_H_

#include "absl/functional/function_ref.h"
#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"
#include "services/engine/model.h"

namespace mechinterp::engine {

// The model: takes a batch through all of it, in the arithmetic of the device that it lies
// on. Throws what that does; the segments are then as far as they came (RunPass, run_pass.h,
// puts them back and is what others call). `abandoned` is asked between layers; false when it
// said so.
bool ForwardPass(const Model& model, const Batch& batch, Arithmetic& arithmetic,
                 absl::FunctionRef<bool()> abandoned);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_FORWARD_H_
