#ifndef SERVICES_ENGINE_FORWARD_CPU_ATTENTION_H_
#define SERVICES_ENGINE_FORWARD_CPU_ATTENTION_H_

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// Arithmetic::Attend on the CPU; the arrays are the rows that have entered at `layer`.
// Scores are kept only where a hook wants them; a query's numbers are the same either
// way.
void AttendOnCpu(const ModelConfig& config, const Batch& batch, int layer, const float* query,
                 const float* key, const float* value, float* z);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_CPU_ATTENTION_H_
