#ifndef SERVICES_ENGINE_OPERATIONS_CIRCUIT_RUN_H_
#define SERVICES_ENGINE_OPERATIONS_CIRCUIT_RUN_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/circuit.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {

// One prompt, run through each of many circuits, with what is outside them as in the source's run.
struct CircuitRequest {
  TokenizedPrompt prompt;
  TokenizedPrompt source;  // of the same length
  int circuit_count = 0;
  // Makes the i-th one when its turn comes: of a large model one has a million edges.
  std::function<Circuit(int)> circuit;
  MetricOptions metrics;  // without openings
};

struct CircuitBaselines {
  RunMetrics clean;
  RunMetrics source;
};

struct CircuitResult {
  int index = 0;
  RunMetrics metrics;
  // (metric - source) / (clean - source) of the logit difference; see Faithfulness.
  std::optional<double> faithfulness;
  int64_t edge_count = 0;
};

// Called once before any result, then for each result, in order. An error ends the run.
struct CircuitSink {
  std::function<absl::Status(const CircuitBaselines&)> on_baselines;
  std::function<absl::Status(const CircuitResult&)> on_result;
};

absl::Status RunCircuits(RunContext& context, const CircuitRequest& request, const CircuitSink& sink);

// How much of what the clean run's logit difference has more than the source run's a circuit makes
// (MIB; Mueller et al. 2025). Nothing when one is missing or the two differ by less than 1e-6.
std::optional<double> Faithfulness(const RunMetrics& circuit, const RunMetrics& clean,
                                   const RunMetrics& source);

// Bytes that it takes, of circuits in which at most so many senders are seen by anybody, and at most
// so many of a layer's receivers see senders of their own. `batch_rows`: the rows for which passes
// have their room already.
int64_t CircuitBytes(const ModelConfig& config, int64_t prompt_length, const MetricOptions& metrics,
                     int64_t sender_count, int64_t reader_count, int64_t batch_rows);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_CIRCUIT_RUN_H_
