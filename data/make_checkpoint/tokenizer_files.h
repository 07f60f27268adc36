#ifndef DATA_MAKE_CHECKPOINT_TOKENIZER_FILES_H_
#define DATA_MAKE_CHECKPOINT_TOKENIZER_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "services/engine/checkpoint/checkpoint_writer.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::make_checkpoint {

// Adds the tokenizer of another checkpoint: tokenizer.json, and where they are
// there tokenizer_config.json and special_tokens_map.json. The shape gets that
// tokenizer's begin and stop tokens, where it has Llama 3's by name. Errors:
// those of engine::Tokenizer::Load; InvalidArgument if the tokenizer has more
// tokens than the shape's vocabulary.
absl::Status AddTokenizer(const std::string& directory, engine::ModelConfig& shape,
                          engine::CheckpointFiles& files);

}  // namespace mechinterp::make_checkpoint

#endif  // DATA_MAKE_CHECKPOINT_TOKENIZER_FILES_H_
