#ifndef SERVICES_ENGINE_OPERATIONS_SOFTMAX_ATTRIBUTION_H_
#define SERVICES_ENGINE_OPERATIONS_SOFTMAX_ATTRIBUTION_H_

#include <cstdint>
#include <vector>

#include "services/engine/base/host_tensor.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/weights/rotary_frequencies.h"

namespace mechinterp::engine {

// Attribution to queries and keys with the softmax computed anew instead of linearized (the QK fix
// of AtP*, Kramar et al. 2024): what a node changes of the attention pattern, exactly, times the
// metric's gradient with respect to the pattern.
class SoftmaxAttribution {
 public:
  // Of a run, after RoPE.
  struct Operands {
    const HostTensor& query;  // [T, H, Dh]
    const HostTensor& key;    // [T, KV, Dh]
  };
  // `source`: the queries, or the keys, of the source's run after RoPE, aligned from its end; positions
  // that it has not score 0. What is replaced is the vector before RoPE, so that at another position it is
  // turned on to where it is put. `gradient` [T, H, T]. All must outlive this.
  SoftmaxAttribution(const ModelConfig& config, int layer, const Operands& clean, const HostTensor& source,
                     const RotaryFrequencies& rotary, const HostTensor& gradient);

  // [T, H]: of one position's query of one head. `source` is of queries.
  HostTensor OfQueries() const;
  // [T, KV]: of one position's key of one head, to which all later queries of its group attend. `source`
  // is of keys.
  HostTensor OfKeys() const;

 private:
  int64_t First(int64_t query) const;  // the first key that it sees
  // `source` as it were at the clean run's positions.
  HostTensor Turned(const HostTensor& source, const RotaryFrequencies& rotary) const;
  int64_t AlignedFrom() const { return offset_ < 0 ? -offset_ : 0; }
  // Of a query row (of either run) and a key row (of either), scaled.
  double Score(const HostTensor& queries, int64_t i, int64_t head, const HostTensor& keys, int64_t t) const;
  // A row of the clean pattern, of keys [First(i), i].
  std::vector<double> Pattern(const HostTensor& queries, int64_t query_row, int64_t i, int64_t head) const;
  const float* Gradient(int64_t i, int64_t head) const;

  const ModelConfig& config_;
  const int64_t window_;
  const Operands clean_;
  const HostTensor& gradient_;
  const int64_t length_;
  const int64_t offset_;     // of the source's positions
  const HostTensor turned_;  // empty where they are the clean run's
  const HostTensor& source_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_SOFTMAX_ATTRIBUTION_H_
