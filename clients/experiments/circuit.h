#ifndef CLIENTS_EXPERIMENTS_CIRCUIT_H_
#define CLIENTS_EXPERIMENTS_CIRCUIT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/circuit_probe.h"
#include "clients/experiments/experiment.h"
#include "clients/experiments/metric_tokens.h"

namespace mechinterp {

struct CircuitOptions {
  // What the circuit is chosen on, and what it is tested on: pairs of prompts of equal length; others
  // are left out, of which the monitor is told. Without test pairs every third one is kept for testing, but
  // of fewer than three none: then all are both. A test pair that has the id of another one that the
  // circuit is chosen on is called "ID (test)" in the results.
  std::vector<PromptPair> pairs;
  std::vector<PromptPair> test_pairs;
  Openings openings;
  AttributionSettings attribution;
  // Effects below it in size are none.
  double least_effect = 0.02;
  // Of attribution's best, how many single neurons and how many edges are patched exactly.
  int neuron_count = 64;
  int edge_count = 200;
  // Ablating and ranking again: how many leaders a round, and at most how many rounds.
  int leader_count = 12;
  int most_rounds = 3;
  // What writes so large a share of the metric's difference into the logits, and moves nothing, is a decoy.
  double least_decoy = 0.1;
  // Of the pairs, for the circuit's stability; at most kMostResamples.
  int resample_count = 100;
};
inline constexpr int kMostResamples = 10'000;

// The circuit of refusal, measured: attribution ranks all heads, single neurons and edges; the leaders
// are patched exactly in both directions; leaders are ablated one by one and everything is ranked
// again, until nothing new is found (backups); then the circuit is put to the test on other prompts:
// how much of the model it does, what the rest does without it, whether it needs each member, whether
// it is of this task alone, and whether other prompts would have given another one.
// Errors: FailedPrecondition for a model without chat template, and where no pair has prompts of equal
// length that the metric tells apart.
absl::StatusOr<v1::CircuitResults> RunCircuitExperiment(const ExperimentContext& context,
                                                        const CircuitOptions& options);

// What the results depend on, for the journal.
Fingerprint CircuitFingerprint(const ExperimentContext& context, const CircuitOptions& options);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_CIRCUIT_H_
