#ifndef SERVICES_ENGINE_WEIGHTS_SAVE_QUANTIZED_H_
#define SERVICES_ENGINE_WEIGHTS_SAVE_QUANTIZED_H_

#include <string>

#include "absl/status/status.h"

namespace mechinterp::engine {

// Writes a model directory's checkpoint to a new directory with its blocks' linear
// layers in NF4, in the layout of Hugging Face's *-bnb-4bit repositories: readable
// by transformers with bitsandbytes, and loaded here without quantizing again.
// Embedding, norms and head stay as they are, and so do tensors that are NF4
// already; tokenizer files are copied. Works tensor by tensor: holds no more than
// one in memory.
// Errors: those of Checkpoint::Open, of WriteCheckpoint, and InvalidArgument naming
// a tensor that is missing, of the wrong shape or not finite. After an error the new
// directory does not exist.
absl::Status SaveQuantized(const std::string& directory, const std::string& new_directory,
                           bool double_quantization);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_SAVE_QUANTIZED_H_
