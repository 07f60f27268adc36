#ifndef CLIENTS_EXPERIMENTS_CIRCUIT_EVALUATION_H_
#define CLIENTS_EXPERIMENTS_CIRCUIT_EVALUATION_H_

#include <vector>

#include "absl/status/status.h"
#include "clients/experiments/circuit_nodes.h"

namespace mechinterp {

// What the circuit that was found is worth, on prompts that it was not chosen on.

// Faithfulness of the best so many edges, and of the best so many nodes (MIB; Mueller et al. 2025);
// of the circuit's nodes, of everything but them, and of them with each left out.
absl::Status EvaluateCircuit(const ExperimentContext& context, const CircuitProbe& probe,
                             const std::vector<CircuitTask>& tests, const CircuitScores& scores,
                             v1::CircuitResults& results);

// How far harmless prompts move when the circuit is as in other harmless prompts of their length, and
// when as many random nodes are. Unset where no two have one length.
absl::Status EvaluateSpecificity(const ExperimentContext& context, const CircuitProbe& probe,
                                 const std::vector<CircuitTask>& tests, v1::CircuitResults& results);

// How alike the circuits of resampled pairs are: of each as many edges as the one that was found,
// at least 10. Where there are more than 20,000 pairs of them, so many are drawn by `seed`.
v1::CircuitStability StabilityOf(const CircuitScores& scores, size_t pair_count, int edge_count,
                                 int resample_count, uint64_t seed);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_CIRCUIT_EVALUATION_H_
