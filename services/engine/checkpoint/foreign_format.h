#ifndef SERVICES_ENGINE_CHECKPOINT_FOREIGN_FORMAT_H_
#define SERVICES_ENGINE_CHECKPOINT_FOREIGN_FORMAT_H_

#include <string>

#include "absl/status/status.h"

namespace mechinterp::engine {

// Tells model files of other kinds from checkpoints in Hugging Face's layout:
// FailedPrecondition, saying what `path` is and what is needed instead, when it
// is a file, or a directory without safetensors that holds GGUF, PyTorch pickles,
// Meta's or Mistral's own files, an adapter, or the snapshots of a hub cache. OK
// otherwise, also for what holds nothing known.
absl::Status CheckNotForeign(const std::string& path);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_FOREIGN_FORMAT_H_
