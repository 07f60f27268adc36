#ifndef SERVICES_ENGINE_OPERATIONS_SELF_CHECK_H_
#define SERVICES_ENGINE_OPERATIONS_SELF_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/engine/forward/executor.h"

namespace mechinterp::engine {

// A device's arithmetic held against the CPU's, on the loaded model: libtorch's GPU back
// ends have given wrong numbers without a word, and a model that is a little wrong
// still talks.

struct LayerError {
  int layer = 0;
  // |device - CPU| / |CPU|, Euclidean norms over what the block adds to the residual
  // stream: the larger of that of the prompt and that of the step. Infinite when the device's is not finite.
  double relative_error = 0;
};

struct SelfCheck {
  // Of the device, the model and what came out; names the check in responses.
  std::string id;
  bool passed = false;
  double tolerance = 0;  // largest relative error that passes
  std::vector<LayerError> layers;
  double head_relative_error = 0;  // of the logits
  // What is wrong; empty when it passed: "layer 3: relative error 0.41".
  std::string problem;
  absl::Duration duration;
};

// Runs a fixed prompt and a decoding step through the whole model, and what the device had
// before the first, the middle and the last block, and before the head, through those again on the CPU,
// from weights read anew from the checkpoint: so an upload that went wrong shows too,
// and a layer's error does not hide behind those before it. Takes a layer's weights in
// memory a second time, one after the other, and seconds for an 8B model.
//
// The errors are those of the context's executor, and of reading the checkpoint.
absl::StatusOr<SelfCheck> CheckDevice(RunContext& context);

// Bytes of weights that it holds at a time, by estimate.
int64_t SelfCheckBytes(const Model& model);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_SELF_CHECK_H_
