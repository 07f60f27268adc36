#ifndef SERVICES_ENGINE_FORWARD_CPU_ATTENTION_GRADIENT_H_
#define SERVICES_ENGINE_FORWARD_CPU_ATTENTION_GRADIENT_H_

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// What attention multiplied, or the gradients with respect to it: query [N, H, Dh], key and value
// [N, KV, Dh].
template <typename Float>
struct AttentionArrays {
  Float* query;
  Float* key;
  Float* value;
};

// Arithmetic::AttendBackward on the CPU. Scores and patterns are made again, row by row; those of
// a segment that edits them, or wants their gradients, as a whole.
void AttendBackwardOnCpu(const ModelConfig& config, const Batch& batch, int layer, int run,
                         const AttentionArrays<const float>& forward, const float* z_gradient,
                         const AttentionArrays<float>& gradients);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_CPU_ATTENTION_GRADIENT_H_
