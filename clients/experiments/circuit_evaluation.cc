#include "clients/experiments/circuit_evaluation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/experiments/circuit_statistics.h"
#include "clients/experiments/summaries.h"
#include "services/common/statistics.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// MIB's.
constexpr double kShares[] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1};

// The i-th value of each task's part.
v1::Estimate EstimateOf(absl::Span<const v1::CircuitPart> parts, int index, uint64_t seed) {
  std::vector<double> values;
  for (const v1::CircuitPart& part : parts) values.push_back(part.values(index));
  return MakeEstimate(values, seed);
}

// What a curve's circuits choose from, the best first, and how many of them each share takes.
struct Ranked {
  std::vector<std::string> names;
  std::vector<int> counts;
};

Ranked RankEdges(const CircuitGraph& graph, const std::vector<double>& scores) {
  Ranked ranked;
  const int all = graph.edge_count();
  for (const int number : LargestBySize(scores, all)) ranked.names.push_back(graph.edge(number));
  for (const double share : kShares) {
    ranked.counts.push_back(std::max(1, static_cast<int>(std::lround(share * all))));
  }
  return ranked;
}

// Nodes, the best first: of each share of the model's edges as many as have no more between them. Each
// adds its part to the head or the MLP that it is, or is of.
struct Part {
  int head_or_mlp;
  double share;  // 1, or a neuron's
};

Ranked RankByEdges(const CircuitGraph& graph, std::vector<std::string> names,
                   const std::vector<Part>& parts) {
  const auto edges_of = [&](int count) {
    std::vector<double> shares(graph.HeadsAndMlps().size());
    for (int i = 0; i < count; ++i) shares[parts[i].head_or_mlp] += parts[i].share;
    return graph.EdgesBetween(shares);
  };
  Ranked ranked{std::move(names), {}};
  for (const double share : kShares) {
    int low = 0, high = static_cast<int>(parts.size());
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (edges_of(middle) <= share * graph.edge_count() * (1 + 1e-9)) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    ranked.counts.push_back(low);
  }
  return ranked;
}

Ranked RankHeadsAndMlps(const CircuitGraph& graph, const std::vector<int>& best_first) {
  const std::vector<std::string> all = graph.HeadsAndMlps();
  std::vector<std::string> names;
  std::vector<Part> parts;
  for (const int number : best_first) {
    names.push_back(all[number]);
    parts.push_back({number, 1});
  }
  return RankByEdges(graph, std::move(names), parts);
}

// Heads and neurons by score for the edges that they take.
Ranked RankHeadsAndNeurons(const CircuitGraph& graph, const std::vector<double>& scores) {
  const double of_neuron = 1.0 / graph.neurons_per_layer();
  std::vector<double> worth = scores;
  for (int i = graph.head_count(); i < graph.node_count(); ++i) worth[i] /= of_neuron;
  std::vector<std::string> names;
  std::vector<Part> parts;
  for (const int number : LargestBySize(worth, graph.node_count())) {
    const CircuitGraph::Node node = graph.node(number);
    names.push_back(node.name());
    parts.push_back({graph.HeadOrMlpOf(node), node.is_head ? 1 : of_neuron});
  }
  return RankByEdges(graph, std::move(names), parts);
}

// The whole model's circuit is the complement of none, so that no more than half of a model's million
// edges are listed.
v1::RunCircuitRequest CurveRequest(const Ranked& ranked, bool of_edges) {
  v1::RunCircuitRequest request;
  const int all = static_cast<int>(ranked.names.size());
  int listed = 1;
  for (const int count : ranked.counts) {
    v1::CircuitMembers& circuit = *request.add_circuits();
    circuit.set_complement(count == all);
    if (count == all) continue;
    circuit.set_leading(static_cast<uint32_t>(count));
    listed = std::max(listed, count);
  }
  for (int i = 0; i < listed; ++i) *(of_edges ? request.add_edges() : request.add_nodes()) = ranked.names[i];
  return request;
}

v1::CircuitCurve CurveOf(absl::Span<const v1::CircuitPart> parts, const std::vector<int>& counts,
                         uint64_t seed) {
  v1::CircuitCurve curve;
  std::vector<double> faithfulness, distance;
  for (size_t i = 0; i < counts.size(); ++i) {
    v1::CircuitCurvePoint& point = *curve.add_points();
    point.set_share(kShares[i]);
    point.set_count(static_cast<uint32_t>(counts[i]));
    *point.mutable_faithfulness() = EstimateOf(parts, static_cast<int>(i), seed);
    faithfulness.push_back(point.faithfulness().mean());
    distance.push_back(std::abs(1 - point.faithfulness().mean()));
  }
  curve.set_cpr(TrapezoidArea(kShares, faithfulness));
  curve.set_cmd(TrapezoidArea(kShares, distance));
  return curve;
}

// Circuits of the results' members and backups, which are the request's nodes.
v1::RunCircuitRequest FoundRequest(const v1::CircuitResults& results) {
  v1::RunCircuitRequest request;
  for (const v1::MeasuredNode& node : results.nodes()) {
    if (node.role() != v1::CIRCUIT_ROLE_DECOY) request.add_nodes(node.name());
  }
  const auto count = static_cast<uint32_t>(request.nodes_size());
  request.add_circuits()->set_leading(count);
  v1::CircuitMembers& rest = *request.add_circuits();
  rest.set_leading(count);
  rest.set_complement(true);
  return request;
}

// Of each circuit its faithfulness, and then of each its divergence.
absl::StatusOr<std::vector<v1::CircuitPart>> RunCircuits(const ExperimentContext& context,
                                                         const CircuitProbe& probe, const std::string& stage,
                                                         const std::vector<CircuitTask>& tasks,
                                                         const v1::RunCircuitRequest& request,
                                                         v1::CircuitResults& results) {
  const size_t values = 2 * static_cast<size_t>(request.circuits_size());
  return RunTasks(
      context, {stage, {values, 0}}, tasks,
      [&](const CircuitTask& task) { return probe.Circuits(task, request); }, results);
}

}  // namespace

absl::Status EvaluateCircuit(const ExperimentContext& context, const CircuitProbe& probe,
                             const std::vector<CircuitTask>& tests, const CircuitScores& scores,
                             v1::CircuitResults& results) {
  const CircuitGraph& graph = probe.graph();
  const auto run = [&](const std::string& stage, const v1::RunCircuitRequest& request) {
    return RunCircuits(context, probe, stage, tests, request, results);
  };
  const auto draw = [&](const std::string& what, const Ranked& ranked, bool of_edges,
                        v1::CircuitCurve& curve) -> absl::Status {
    ABSTRACT_ASSIGN_OR_RETURN(const auto parts,
                              run(absl::StrCat("circuits of ", what), CurveRequest(ranked, of_edges)));
    curve = CurveOf(parts, ranked.counts, context.seed);
    return absl::OkStatus();
  };
  ABSTRACT_RETURN_IF_ERROR(draw("edges", RankEdges(graph, scores.mean_edges),
                                /*of_edges=*/true, *results.mutable_edge_curve()));
  ABSTRACT_RETURN_IF_ERROR(draw("heads and MLPs", RankHeadsAndMlps(graph, scores.heads_and_mlps),
                                /*of_edges=*/false, *results.mutable_node_curve()));
  ABSTRACT_RETURN_IF_ERROR(draw("heads and neurons", RankHeadsAndNeurons(graph, scores.mean_nodes),
                                /*of_edges=*/false, *results.mutable_neuron_curve()));

  v1::RunCircuitRequest found = FoundRequest(results);
  if (found.nodes().empty()) return absl::OkStatus();
  const int count = found.nodes_size();
  for (int i = 0; i < count; ++i) {
    v1::CircuitMembers& without = *found.add_circuits();
    without.set_leading(static_cast<uint32_t>(count));
    without.add_except(static_cast<uint32_t>(i));
  }
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<v1::CircuitPart> parts, run("the circuit", found));
  *results.mutable_faithfulness() = EstimateOf(parts, 0, context.seed);
  *results.mutable_complement_faithfulness() = EstimateOf(parts, 1, context.seed);
  for (int i = 0; i < count; ++i) {
    for (v1::CircuitPart& part : parts) part.set_values(2 + i, part.values(0) - part.values(2 + i));
    v1::MemberDrop& drop = *results.add_minimality();
    drop.set_name(found.nodes(i));
    *drop.mutable_drop() = EstimateOf(parts, 2 + i, context.seed);
  }
  return absl::OkStatus();
}

namespace {

// Harmless prompts of one length, each with the next one.
std::vector<CircuitTask> HarmlessPairs(const std::vector<CircuitTask>& tests) {
  std::map<int, std::vector<const CircuitTask*>> by_length;
  for (const CircuitTask& task : tests) by_length[task.length].push_back(&task);
  std::vector<CircuitTask> pairs;
  for (const auto& [length, tasks] : by_length) {
    for (size_t i = 0; i < tasks.size() && tasks.size() > 1; ++i) {
      CircuitTask pair = *tasks[i];
      pair.prompt = tasks[i]->source;
      pair.source = tasks[(i + 1) % tasks.size()]->source;
      pairs.push_back(std::move(pair));
    }
  }
  return pairs;
}

// Nodes that are not in the circuit, as many of each kind.
void AddRandomNodes(const CircuitGraph& graph, uint64_t seed, v1::RunCircuitRequest& request) {
  std::set<std::string> taken(request.nodes().begin(), request.nodes().end());
  const int count = request.nodes_size();
  std::mt19937_64 random(seed);
  for (int i = 0; i < count; ++i) {
    const bool is_head = request.nodes(i).find(".H") != std::string::npos;
    const int first = is_head ? 0 : graph.head_count();
    const int size = is_head ? graph.head_count() : graph.node_count() - graph.head_count();
    for (int attempt = 0; attempt < 100; ++attempt) {
      const std::string name = graph.node(first + static_cast<int>(random() % size)).name();
      if (!taken.insert(name).second) continue;
      request.add_nodes(name);
      break;
    }
  }
}

}  // namespace

absl::Status EvaluateSpecificity(const ExperimentContext& context, const CircuitProbe& probe,
                                 const std::vector<CircuitTask>& tests, v1::CircuitResults& results) {
  v1::RunCircuitRequest request = FoundRequest(results);
  const int count = request.nodes_size();
  if (count == 0) return absl::OkStatus();
  AddRandomNodes(probe.graph(), context.seed, request);
  request.clear_circuits();
  v1::CircuitMembers& found = *request.add_circuits();
  found.set_leading(static_cast<uint32_t>(count));
  found.set_complement(true);
  v1::CircuitMembers& random = *request.add_circuits();
  for (int i = count; i < request.nodes_size(); ++i) random.add_members(static_cast<uint32_t>(i));
  random.set_complement(true);
  const std::vector<CircuitTask> pairs = HarmlessPairs(tests);
  if (pairs.empty()) return absl::OkStatus();
  ABSTRACT_ASSIGN_OR_RETURN(const auto parts,
                            RunCircuits(context, probe, "specificity", pairs, request, results));
  // Values are two faithfulnesses, then two divergences.
  *results.mutable_specificity() = EstimateOf(parts, 2, context.seed);
  *results.mutable_random_specificity() = EstimateOf(parts, 3, context.seed);
  return absl::OkStatus();
}

v1::CircuitStability StabilityOf(const CircuitScores& scores, size_t pair_count, int edge_count,
                                 int resample_count, uint64_t seed) {
  constexpr size_t kMostCompared = 20'000;
  v1::CircuitStability stability;
  stability.set_resample_count(static_cast<uint32_t>(resample_count));
  stability.set_edge_count(static_cast<uint32_t>(std::max(10, edge_count)));
  std::mt19937_64 random(seed);
  std::vector<std::vector<int>> circuits;
  for (int resample = 0; resample < resample_count; ++resample) {
    std::vector<double> sums(scores.mean_edges.size());
    for (size_t draw = 0; draw < pair_count; ++draw) {
      // A pair's tasks, one in each direction, come and go together.
      const size_t pair = random() % pair_count;
      for (size_t task = pair; task < scores.edges.size(); task += pair_count) {
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += scores.edges[task][i];
      }
    }
    std::vector<int> edges = LargestBySize(sums, static_cast<int>(stability.edge_count()));
    std::sort(edges.begin(), edges.end());
    circuits.push_back(std::move(edges));
  }
  std::vector<double> indices;
  const size_t count = circuits.size();
  if (count * (count - 1) / 2 <= kMostCompared) {
    for (size_t a = 0; a < count; ++a) {
      for (size_t b = 0; b < a; ++b) indices.push_back(JaccardIndex(circuits[a], circuits[b]));
    }
  } else {
    for (size_t draw = 0; draw < kMostCompared; ++draw) {
      const size_t a = random() % count, b = (a + 1 + random() % (count - 1)) % count;
      indices.push_back(JaccardIndex(circuits[a], circuits[b]));
    }
  }
  if (indices.empty()) return stability;
  std::sort(indices.begin(), indices.end());
  stability.set_mean_jaccard(Mean(indices));
  stability.set_low_jaccard(Quantile(indices, 0.05));
  return stability;
}

}  // namespace mechinterp
