#ifndef SERVICES_ENGINE_CHECKPOINT_SHARD_INDEX_H_
#define SERVICES_ENGINE_CHECKPOINT_SHARD_INDEX_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace mechinterp::engine {

// Reads model.safetensors.index.json: for each tensor the shard that holds it, a
// file of the same directory. Errors: NotFound (no such file), InvalidArgument
// (no weight map, or a shard that is not a plain file name).
absl::StatusOr<std::map<std::string, std::string>> ReadShardIndex(const std::string& path);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_SHARD_INDEX_H_
