#ifndef DATA_TRAINER_CHECKPOINT_H_
#define DATA_TRAINER_CHECKPOINT_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/trainer/generation.h"

namespace mechinterp::trainer {

// Writes config.json, generation_config.json and model.safetensors (bf16) into
// `folder`, which already holds the tokenizer files. `metadata` goes into the
// safetensors header.
absl::Status WriteCheckpoint(const std::string& folder, const ModelConfig& config, Weights& weights,
                             const engine::Tokenizer& tokenizer,
                             const std::map<std::string, std::string>& metadata);

// The shape that a checkpoint's config.json gives, and its weights in fp32 (the
// output head is taken to be the embedding). Errors as LoadCheckpoint's.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path);
absl::StatusOr<Weights> LoadWeights(const std::string& path, const ModelConfig& config);

// Reads back what WriteCheckpoint wrote. Errors: NotFound, or InvalidArgument
// naming the file and what is wrong with it.
absl::StatusOr<ChatModel> LoadCheckpoint(const std::string& folder);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_CHECKPOINT_H_
