#ifndef SERVICES_ENGINE_CHECKPOINT_MODEL_SOURCE_H_
#define SERVICES_ENGINE_CHECKPOINT_MODEL_SOURCE_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace mechinterp::engine {

// Where a model that a user named lies on this machine.
struct ModelSource {
  // Holds config.json and safetensors.
  std::string directory;
  // "meta-llama/Meta-Llama-3-8B-Instruct"; empty for a directory, which is called
  // by its own name.
  std::string repo_id;
  // Commit hash of the cached snapshot; empty for a directory.
  std::string commit;
};

// The value of an environment variable, null when it is not set.
using Environment = std::function<const char*(const char* name)>;

// Hugging Face's local cache, by the variables of huggingface_hub and in their
// order: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE (its older name), HF_HOME/hub,
// XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub. Variables that are
// empty count as not set.
std::string HubCacheDirectory(const Environment& environment);
// The same from this process's environment.
std::string HubCacheDirectory();

// Finds the model that `model` names: an existing directory, or else a Hugging
// Face repo id with an optional revision ("ORG/NAME", "ORG/NAME@REVISION"; main
// by default) in the local cache, laid out as
// huggingface.co/docs/hub/local-cache says: models--ORG--NAME/refs/REVISION holds
// a commit hash, snapshots/COMMIT/ the files, mostly as links into blobs/. A
// commit hash as the revision needs no ref. Nothing is downloaded.
//
// Errors, each with what to do about it: NotFound when there is no such directory
// or the cache lacks the model, or files of it (the `hf download` command that
// gets them is part of the message); FailedPrecondition when what is there is not
// in Hugging Face's layout with safetensors (GGUF, PyTorch pickles, Meta's or
// Mistral's own files, an adapter); those of ReadShardIndex. Thread-safe.
absl::StatusOr<ModelSource> ResolveModelSource(const std::string& model, const std::string& hub_cache);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_MODEL_SOURCE_H_
