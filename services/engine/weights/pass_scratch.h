#ifndef SERVICES_ENGINE_WEIGHTS_PASS_SCRATCH_H_
#define SERVICES_ENGINE_WEIGHTS_PASS_SCRATCH_H_

#include <cstdint>

#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// The memory that a forward pass works in, from the configuration alone: loading a model
// asks for it before there is anything to run.

// Logits are made in blocks of this many rows: one row is half a megabyte for Llama 3.
inline constexpr int64_t kHeadRowsPerBlock = 64;

// Bytes of the intermediate results of forward passes of up to `rows` rows (Slot,
// forward/arithmetic.h). On a GPU attention takes more while it works, with the square of
// a prompt's length.
int64_t ScratchBytes(const ModelConfig& config, int64_t rows);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_PASS_SCRATCH_H_
