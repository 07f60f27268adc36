#ifndef SERVICES_ENGINE_WEIGHTS_WEIGHTS_H_
#define SERVICES_ENGINE_WEIGHTS_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/checkpoint/checkpoint.h"
#include "services/engine/checkpoint/stored_values.h"
#include "services/engine/weights/linear_weight.h"
#include "services/engine/weights/load_options.h"
#include "services/engine/weights/rotary_frequencies.h"

namespace mechinterp::engine {

// Token embeddings [V, D]: rows are read from the mapped file, never copied as a
// whole. Valid as long as the checkpoint.
class EmbeddingTable {
 public:
  EmbeddingTable(const TensorView& view, int64_t width) : values_(view), width_(width) {}
  // row: [D], fp32.
  void CopyRow(TokenId id, float* row) const { values_.Read(int64_t{id} * width_, width_, row); }

 private:
  StoredValues values_;
  int64_t width_;
};

struct LayerWeights {
  at::Tensor ln1_gain;  // [D], like all gains on the device
  LinearWeight query;   // [H * Dh, D]
  LinearWeight key;     // [KV * Dh, D]
  LinearWeight value;   // [KV * Dh, D]
  // Of the norms of each head's query and key, [Dh]; undefined where there are none.
  at::Tensor query_norm_gain;
  at::Tensor key_norm_gain;
  LinearWeight output;  // [D, H * Dh]
  at::Tensor ln2_gain;  // [D]
  LinearWeight gate;    // [F, D]
  LinearWeight up;      // [F, D]
  LinearWeight down;    // [D, F]
};

struct ModelWeights {
  Checkpoint checkpoint;  // keeps the embedding's mapping
  EmbeddingTable embedding;
  std::vector<LayerWeights> layers;
  at::Tensor ln_final_gain;  // [D]
  LinearWeight unembedding;  // [V, D]; made from the embedding where they are tied
  RotaryFrequencies rotary_frequencies;
};

// Bytes of the weights in memory by how they are held, the mapped embedding left
// out.
using WeightBytes = std::map<NumberFormat, int64_t>;

// What LoadWeights would take, from the configuration alone.
WeightBytes EstimateWeightBytes(const Checkpoint& checkpoint, const WeightFormats& formats);
WeightBytes CountWeightBytes(const ModelWeights& weights);
StoredNf4 FindStoredNf4(const Checkpoint& checkpoint);

// Reads and checks every tensor of the architecture, one after the other: the
// checkpoint's own form is never in memory as a whole.
absl::StatusOr<ModelWeights> LoadWeights(Checkpoint checkpoint, const WeightFormats& formats,
                                         bool round_rope_frequencies_to_bfloat16);

// Some of a model's weights.
struct WeightSelection {
  std::vector<int> layers;  // taken as the first ones, in this order
  bool with_head = true;    // the last norm and the head too
};
// Reads those again, for the CPU, from the checkpoint that `whole` came from.
absl::StatusOr<ModelWeights> ReloadWeights(const ModelWeights& whole, const WeightFormats& formats,
                                           const WeightSelection& selection);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_WEIGHTS_H_
