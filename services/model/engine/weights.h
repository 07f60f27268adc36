#ifndef SERVICES_MODEL_ENGINE_WEIGHTS_H_
#define SERVICES_MODEL_ENGINE_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "services/model/engine/checkpoint.h"
#include "services/model/engine/model.h"

namespace mechinterp::engine {

// A matrix that rows of activations are multiplied by. The seam for other
// formats: callers know its sizes and Apply, not how the numbers are held.
struct LinearWeight {
  at::Tensor weight;  // [out, in] fp32

  int64_t in() const { return weight.size(1); }
  int64_t out() const { return weight.size(0); }
  // x [N, in] -> [N, out].
  at::Tensor Apply(const at::Tensor& x) const;
};

struct LayerWeights {
  at::Tensor ln1_gain;  // [D]
  LinearWeight query;   // [H * Dh, D]
  LinearWeight key;     // [KV * Dh, D]
  LinearWeight value;   // [KV * Dh, D]
  LinearWeight output;  // [D, H * Dh]
  at::Tensor ln2_gain;  // [D]
  LinearWeight gate;    // [F, D]
  LinearWeight up;      // [F, D]
  LinearWeight down;    // [D, F]
};

struct ModelWeights {
  at::Tensor embedding;  // [V, D]
  std::vector<LayerWeights> layers;
  at::Tensor ln_final_gain;  // [D]
  LinearWeight unembedding;  // [V, D]; the embedding itself where they are tied
  // Rotary angles of each position: [context, Dh / 2].
  at::Tensor cosines;
  at::Tensor sines;
};

// Reads and checks every tensor of the architecture.
absl::StatusOr<ModelWeights> LoadWeights(const Checkpoint& checkpoint, const LoadOptions& options);

// Every tensor once, tied ones not twice.
int64_t CountParameters(const ModelWeights& weights);

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_WEIGHTS_H_
