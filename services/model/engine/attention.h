#ifndef SERVICES_MODEL_ENGINE_ATTENTION_H_
#define SERVICES_MODEL_ENGINE_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include "services/model/engine/batch.h"
#include "services/model/engine/model_config.h"

namespace mechinterp::engine {

// Causal grouped-query attention of every segment that has entered at `layer`,
// each over its own positions. query [N, H * Dh], key and value [N, KV * Dh],
// after RoPE; keys and values are appended to the segments' caches. Writes z
// [N, H * Dh]. Scores are kept only where a hook wants them; a query's numbers
// are the same either way.
void Attend(const ModelConfig& config, const Batch& batch, int layer, const at::Tensor& query,
            const at::Tensor& key, const at::Tensor& value, const at::Tensor& z);

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_ATTENTION_H_
