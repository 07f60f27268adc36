#ifndef SERVICES_ENGINE_CHECKPOINT_CHECKPOINT_WRITER_H_
#define SERVICES_ENGINE_CHECKPOINT_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/engine/checkpoint/safetensors_writer.h"

namespace mechinterp::engine {

// The files beside the weights, name -> content: config.json, tokenizer.json ...
using CheckpointFiles = std::map<std::string, std::string>;

struct CheckpointWriteOptions {
  // Tensor bytes in one file; a larger tensor gets a file of its own. When all
  // fits into one, it is model.safetensors and there is no index.
  uint64_t shard_bytes = 5'000'000'000;
};

// Writes a model directory in Hugging Face layout, streaming: no more in memory
// than what a source hands over at a time. Sources are called once each, in
// order, on the calling thread. The directory appears, complete and synced, only
// at the end (see partial_directory.h): after an error, a full disk or a kill
// there is none.
// Errors, before any source is called: AlreadyExists (the directory is there),
// Unavailable (another process writes it), ResourceExhausted (the disk has not
// room for all), InvalidArgument (two tensors of one name, a bad shape, a small
// file whose name is a path or one of the weights'). Later: those of
// WriteSafetensorsFile.
absl::Status WriteCheckpoint(const std::string& directory, absl::Span<const TensorSource> tensors,
                             const CheckpointFiles& files, const CheckpointWriteOptions& options = {});

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_CHECKPOINT_WRITER_H_
