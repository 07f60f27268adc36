#ifndef DATA_MAKE_CHECKPOINT_SHAPE_H_
#define DATA_MAKE_CHECKPOINT_SHAPE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/checkpoint/checkpoint_writer.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::make_checkpoint {

// Names that PresetShape knows: "llama3-8b", ...
std::vector<std::string> PresetNames();

// The shape of a published model, with the ids of its special tokens.
// Errors: NotFound, with the names there are.
absl::StatusOr<engine::ModelConfig> PresetShape(const std::string& name);

// Forgets the special tokens whose ids lie past the vocabulary.
void DropTokensPastTheVocabulary(engine::ModelConfig& shape);

// config.json and generation_config.json as transformers writes them. Errors:
// those of engine::ParseModelConfig, for sizes that contradict each other.
absl::StatusOr<engine::CheckpointFiles> ConfigFiles(const engine::ModelConfig& shape,
                                                    engine::NumberFormat dtype);

}  // namespace mechinterp::make_checkpoint

#endif  // DATA_MAKE_CHECKPOINT_SHAPE_H_
