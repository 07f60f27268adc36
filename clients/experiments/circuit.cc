#include "clients/experiments/circuit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/experiments/ablation_plan.h"
#include "clients/experiments/circuit_evaluation.h"
#include "clients/experiments/circuit_measures.h"
#include "clients/experiments/circuit_nodes.h"
#include "clients/experiments/fingerprints.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

void Remark(const ExperimentContext& context, const std::string& text) {
  if (context.monitor != nullptr) context.monitor->Remark(text);
}

// Whether a part is of a pair's metrics, whose lengths are counts.
bool HasLengths(const v1::CircuitPart& part) {
  constexpr double kMost = 1 << 30;
  return std::isfinite(part.values(0)) && std::isfinite(part.values(1)) &&
         std::max(part.values(2), part.values(3)) <= kMost && std::min(part.values(2), part.values(3)) >= 1;
}

// Both directions of the pairs whose prompts are of one length and that the model tells apart. `what`:
// "pairs", "test pairs".
absl::StatusOr<CircuitTasks> MakeTasks(const ExperimentContext& context, const CircuitProbe& probe,
                                       const MetricTokens& tokens, const std::vector<PromptPair>& pairs,
                                       std::string_view what, v1::CircuitResults& results) {
  constexpr double kLeastGap = 1e-3;
  std::vector<CircuitTask> asked;
  for (const PromptPair& pair : pairs) asked.push_back(TaskOf(pair, tokens));
  ABSTRACT_ASSIGN_OR_RETURN(const auto parts,
                            RunTasks(
                                context, {"prompts", {4, 0}, "", HasLengths}, asked,
                                [&](const CircuitTask& task) { return probe.Metrics(task); }, results));
  CircuitTasks tasks;
  int unequal = 0, alike = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    const v1::CircuitPart& part = parts[i];
    if (part.values(2) != part.values(3)) {
      ++unequal;
      continue;
    }
    asked[i].gap = part.values(1) - part.values(0);
    asked[i].length = static_cast<int>(part.values(2));
    if (std::abs(asked[i].gap) < kLeastGap) {
      ++alike;
      continue;
    }
    tasks.noising.push_back(asked[i]);
    tasks.denoising.push_back(asked[i].Reversed());
  }
  if (unequal + alike > 0) {
    Remark(context, absl::StrCat(unequal + alike, " of ", pairs.size(), " ", std::string(what),
                                 " left out: ", unequal, " with prompts of unequal length in tokens, ", alike,
                                 " that the metric does not tell apart"));
  }
  return tasks;
}

// What to choose on, and what to test on; where there is nothing for that, every third pair.
struct Split {
  CircuitTasks chosen;
  std::vector<CircuitTask> tested;
};

// Tests that have the id of another pair that the circuit is chosen on get one of their own.
void TellApart(const std::vector<CircuitTask>& chosen, std::vector<CircuitTask>& tested) {
  std::map<std::string, std::string> keys;  // by id
  for (const CircuitTask& task : chosen) keys[task.pair_id] = task.key();
  for (CircuitTask& task : tested) {
    const auto namesake = keys.find(task.pair_id);
    if (namesake != keys.end() && namesake->second != task.key()) absl::StrAppend(&task.pair_id, " (test)");
  }
}

absl::StatusOr<Split> SplitPairs(const ExperimentContext& context, const CircuitProbe& probe,
                                 const MetricTokens& tokens, const CircuitOptions& options,
                                 v1::CircuitResults& results) {
  ABSTRACT_ASSIGN_OR_RETURN(const CircuitTasks tasks,
                            MakeTasks(context, probe, tokens, options.pairs, "pairs", results));
  if (tasks.noising.empty()) {
    return absl::FailedPreconditionError(
        "no pair has prompts of equal length that the metric tells apart: everything outside a circuit is as "
        "at the same position of the pair's other prompt");
  }
  ABSTRACT_ASSIGN_OR_RETURN(CircuitTasks tests,
                            MakeTasks(context, probe, tokens, options.test_pairs, "test pairs", results));
  if (!tests.noising.empty()) {
    TellApart(tasks.noising, tests.noising);
    return Split{tasks, tests.noising};
  }
  const std::string want = options.test_pairs.empty() ? "" : "no test pair is left; ";
  if (tasks.noising.size() < 3) {
    Remark(context,
           want + "the circuit is tested on the pairs that it is chosen on, which are fewer than three");
    return Split{tasks, tasks.noising};
  }
  if (!want.empty()) Remark(context, want + "the circuit is tested on every third of the pairs instead");
  Split split;
  for (size_t i = 0; i < tasks.noising.size(); ++i) {
    if (i % 3 == 2) {
      split.tested.push_back(tasks.noising[i]);
    } else {
      split.chosen.noising.push_back(tasks.noising[i]);
      split.chosen.denoising.push_back(tasks.denoising[i]);
    }
  }
  return split;
}

v1::CircuitResults Describe(const ExperimentContext& context, const CircuitOptions& options) {
  v1::CircuitResults results;
  *results.mutable_provenance() = ProvenanceOf(context, options.pairs.size());
  results.set_head_count(context.model.head_count());
  results.set_key_value_head_count(context.model.key_value_head_count());
  results.set_method(options.attribution.method);
  results.set_least_effect(options.least_effect);
  return results;
}

double ParameterShareOf(const CircuitGraph& graph, const v1::GetModelResponse& model,
                        const v1::CircuitResults& results) {
  std::vector<v1::Component> components;
  for (const v1::MeasuredNode& node : results.nodes()) {
    if (node.role() != v1::CIRCUIT_ROLE_DECOY) components.push_back(graph.ComponentOf(NodeOf(node)));
  }
  return ParameterShare(components, model);
}

}  // namespace

absl::StatusOr<v1::CircuitResults> RunCircuitExperiment(const ExperimentContext& context,
                                                        const CircuitOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(CheckModelFitsStudy(context.model));
  ABSTRACT_ASSIGN_OR_RETURN(const MetricTokens tokens, FindMetricTokens(*context.client, options.openings));
  const CircuitGraph graph(context.model);
  const CircuitProbe probe(context, graph, options.attribution);
  v1::CircuitResults results = Describe(context, options);
  ABSTRACT_ASSIGN_OR_RETURN(const Split split, SplitPairs(context, probe, tokens, options, results));
  for (const CircuitTask& task : split.chosen.noising) results.add_pair_ids(task.pair_id);
  for (const CircuitTask& task : split.tested) results.add_test_pair_ids(task.pair_id);
  ABSTRACT_ASSIGN_OR_RETURN(const CircuitScores scores,
                            FindCircuit(context, probe, options, split.chosen, results));
  ABSTRACT_RETURN_IF_ERROR(EvaluateCircuit(context, probe, split.tested, scores, results));
  ABSTRACT_RETURN_IF_ERROR(EvaluateSpecificity(context, probe, split.tested, results));
  *results.mutable_stability() = StabilityOf(scores, split.chosen.noising.size(), results.edges_size(),
                                             options.resample_count, context.seed);
  results.set_parameter_share(ParameterShareOf(graph, context.model, results));
  return results;
}

Fingerprint CircuitFingerprint(const ExperimentContext& context, const CircuitOptions& options) {
  Fingerprint fingerprint = CommonFingerprint(context, "circuit", options.pairs);
  AddOpenings(options.openings, fingerprint);
  fingerprint["test prompts"] = DigestOf(options.test_pairs);
  fingerprint["--method"] = v1::AttributionMethod_Name(options.attribution.method);
  fingerprint["--steps"] = absl::StrCat(options.attribution.steps);
  fingerprint["--least-effect"] = absl::StrCat(options.least_effect);
  fingerprint["--least-decoy"] = absl::StrCat(options.least_decoy);
  fingerprint["--neurons"] = absl::StrCat(options.neuron_count);
  fingerprint["--edges"] = absl::StrCat(options.edge_count);
  fingerprint["--leaders"] = absl::StrCat(options.leader_count);
  fingerprint["--rounds"] = absl::StrCat(options.most_rounds);
  return fingerprint;
}

}  // namespace mechinterp
