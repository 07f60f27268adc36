#ifndef DATA_MAKE_TRAINED_CIRCUIT_MEASUREMENT_H_
#define DATA_MAKE_TRAINED_CIRCUIT_MEASUREMENT_H_

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "data/make_trained/circuit_batch.h"
#include "data/make_trained/edge_draws.h"

namespace mechinterp::make_trained {

// Pairs, and a trained model that is asked about them with edges patched. Not thread-safe.
class PatchingRuns {
 public:
  // All must outlive it.
  PatchingRuns(const trainer::ModelConfig& config, const trainer::Weights& weights, const Task& task,
               const std::vector<ExamplePair>& pairs);

  struct Answers {
    at::Tensor logits;  // [2N, A] of the task's answers
    at::Tensor given;   // [2N] the answer whose first token the model would go on with; -1: none
  };
  // With these edges of every row from its source.
  Answers Patched(const EdgeMask& mask) const;
  const Answers& plain() const { return plain_; }
  const PairRows& rows() const { return rows_; }

  // What the circuit answers, [2N].
  std::vector<int> Expected(const EdgeMask& mask) const;
  // How far patching takes each row's answer to its source's: 0 not at all, 1 all the way. [2N]
  std::vector<double> Effects(const EdgeMask& mask) const;

 private:
  Answers AnswersOf(const at::Tensor& hidden) const;

  const trainer::ModelConfig& config_;
  const trainer::Weights& weights_;
  const Task& task_;
  const EdgeSpace space_;
  const PairRows rows_;
  const std::vector<at::Tensor> tokens_;
  std::vector<at::Tensor> sources_;
  Answers plain_;
};

// Shares of right answers on held-out prompts.
struct Accuracies {
  int pairs = 0;
  double behaviour = 0;    // nothing is patched
  double interchange = 0;  // a variable of the circuit is
  double interchange_edges = 0;
  double moved = 0;   // interchange, where the circuit says that the answer changes
  double strict = 0;  // a sender that is of no variable
  double strict_edges = 0;
  double circuit_alone = 0;  // all edges that are not the circuit's, at once
};

Accuracies MeasureAccuracies(const trainer::ModelConfig& config, const trainer::Weights& weights,
                             const Task& task, const std::vector<ExamplePair>& pairs);

// Effects of single nodes and edges beside what the circuit says, over pairs whose answers differ.
struct EffectErrors {
  double largest_of_circuit_nodes = 0, largest_of_other_nodes = 0;
  double largest_of_circuit_edges = 0, largest_of_other_edges = 0;
  std::string worst_circuit_node, worst_other_node, worst_circuit_edge, worst_other_edge;
};

EffectErrors MeasureEffects(const trainer::ModelConfig& config, const trainer::Weights& weights,
                            const Task& task);

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_CIRCUIT_MEASUREMENT_H_
