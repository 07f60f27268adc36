#ifndef SERVICES_ENGINE_WEIGHTS_PASS_SCRATCH_H_
#define SERVICES_ENGINE_WEIGHTS_PASS_SCRATCH_H_

#include <cstdint>

#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// The memory that a forward pass works in, from the configuration alone: loading a model
// asks for it before there is anything to run.

// Logits are made in blocks of this many rows: one row is half a megabyte for Llama 3.
inline constexpr int64_t kHeadRowsPerBlock = 64;

// Bytes of what forward passes of up to `rows` rows work in and keep for the next pass: their
// intermediate results (Slot, forward/arithmetic.h) and operands. On a GPU attention takes
// more while it works, with the square of a prompt's length.
int64_t ScratchBytes(const ModelConfig& config, int64_t rows);

// What a pass takes beside and gives back at its end: the rotary angles of its rows, and the
// scores of one key/value head over `keys` keys for each thread.
int64_t PassBytes(const ModelConfig& config, int64_t rows, int64_t keys);

// Bytes of what the way back works in, for `rows` rows, besides its tape.
int64_t GradientScratchBytes(const ModelConfig& config, int64_t rows);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_PASS_SCRATCH_H_
