#ifndef CLIENTS_EXPERIMENTS_CIRCUIT_PROBE_H_
#define CLIENTS_EXPERIMENTS_CIRCUIT_PROBE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "clients/experiments/circuit_graph.h"
#include "clients/experiments/experiment.h"
#include "clients/experiments/metric_tokens.h"

namespace mechinterp {

// A pair, one way: whose run is patched, and from where. The two prompts have as many tokens.
struct CircuitTask {
  std::string pair_id;
  v1::PatchDirection direction = v1::PATCH_DIRECTION_NOISING;
  v1::Prompt prompt;
  v1::Prompt source;
  v1::MetricOptions metrics;
  int length = 0;  // of both, in tokens
  // Metric of the source's run less that of the prompt's: what effects are shares of. Not 0.
  double gap = 1;

  // "p01/noising/9e3779b97f4a7c15", the last of the two prompts.
  std::string key() const;
  // The other way.
  CircuitTask Reversed() const;
};
// A pair's, noising; length and gap are not known yet.
CircuitTask TaskOf(const PromptPair& pair, const MetricTokens& tokens);

// How attribution is made.
struct AttributionSettings {
  v1::AttributionMethod method = v1::ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS;
  int steps = 5;  // of INTEGRATED_GRADIENTS
};

// What the circuit experiment asks of the service, one call each, with the answers as parts of its
// journal: values and scores are shares of the task's gap, at all positions together. Thread-safe.
// Errors: the service's; FailedPrecondition when another model answers.
class CircuitProbe {
 public:
  // All must outlive it.
  CircuitProbe(const ExperimentContext& context, const CircuitGraph& graph,
               const AttributionSettings& settings)
      : context_(context), graph_(graph), settings_(settings) {}

  // Values: the metric of the prompt's run and of the source's, as they are, and the tokens of both.
  absl::StatusOr<v1::CircuitPart> Metrics(const CircuitTask& task) const;

  using Nodes = absl::Span<const CircuitGraph::Node>;

  // Scores of all nodes, or all edges, as attribution estimates them; with `ablated` as in the source.
  absl::StatusOr<v1::CircuitPart> NodeScores(const CircuitTask& task, Nodes ablated = {}) const;
  absl::StatusOr<v1::CircuitPart> EdgeScores(const CircuitTask& task) const;

  // Exact effects: of heads in their order; of whole MLPs, layer by layer; of groups of so many neurons,
  // layer by layer; of nodes each by itself, with `ablated` as in the source in every run; of edges.
  absl::StatusOr<v1::CircuitPart> HeadEffects(const CircuitTask& task) const;
  absl::StatusOr<v1::CircuitPart> MlpEffects(const CircuitTask& task) const;
  absl::StatusOr<v1::CircuitPart> NeuronGroupEffects(const CircuitTask& task, int neurons_per_group) const;
  absl::StatusOr<v1::CircuitPart> NodeEffects(const CircuitTask& task, Nodes nodes, Nodes ablated = {}) const;
  absl::StatusOr<v1::CircuitPart> EdgeEffects(const CircuitTask& task,
                                              absl::Span<const std::string> edges) const;

  // Scores: what each node of the prompt's run writes into the logits itself, at the last position, as a
  // share of the gap's size (direct logit attribution); neurons but the 1,000 largest are 0.
  absl::StatusOr<v1::CircuitPart> DirectScores(const CircuitTask& task) const;

  // Values: the circuits' faithfulness; and KL from the prompt's run in nats, after them. The
  // request's prompts and metrics are the task's.
  absl::StatusOr<v1::CircuitPart> Circuits(const CircuitTask& task, v1::RunCircuitRequest request) const;

  const CircuitGraph& graph() const { return graph_; }

 private:
  absl::StatusOr<v1::CircuitPart> Sweep(const CircuitTask& task, v1::RunPatchSweepRequest request) const;
  // Replaces a point in every layer, one layer, or one part of it along an axis, at a time.
  absl::StatusOr<v1::CircuitPart> SweepLayers(const CircuitTask& task, v1::HookPoint point,
                                              v1::SweepAxis axis, int dims_per_group) const;
  v1::RunAttributionRequest Attribution(const CircuitTask& task) const;

  const ExperimentContext& context_;
  const CircuitGraph& graph_;
  const AttributionSettings settings_;
};

// A part's scores.
std::vector<float> ScoresOf(const v1::CircuitPart& part);

// How much a part holds.
struct CircuitPartSize {
  size_t values = 0;
  size_t scores = 0;
  bool operator==(const CircuitPartSize&) const = default;
};
CircuitPartSize SizeOf(const v1::CircuitPart& part);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_CIRCUIT_PROBE_H_
