#ifndef SERVICES_ENGINE_CHECKPOINT_UNUSED_TENSORS_H_
#define SERVICES_ENGINE_CHECKPOINT_UNUSED_TENSORS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// Finds the tensors of a checkpoint that its model has no use for. One that leaves out what
// was trained would compute something else without a word. `names`: all tensors of the files.
//
// Returns those that change nothing: buffers of rotary embeddings, which the configuration
// determines. Errors: InvalidArgument naming the others, what they are and what to do.
absl::StatusOr<std::vector<std::string>> FindUnusedTensors(const ModelConfig& config,
                                                           const std::vector<std::string>& names);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_UNUSED_TENSORS_H_
