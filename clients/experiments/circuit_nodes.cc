#include "clients/experiments/circuit_nodes.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/experiments/circuit_measures.h"
#include "clients/experiments/circuit_statistics.h"
#include "clients/experiments/summaries.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

using Node = CircuitGraph::Node;

// Both directions' effects of one of many that were measured together.
template <typename Measured>
void SetEffects(absl::Span<const v1::CircuitPart> noising, absl::Span<const v1::CircuitPart> denoising,
                int index, uint64_t seed, Measured& measured) {
  const std::vector<double> noise = Column(noising, index), denoise = Column(denoising, index);
  *measured.mutable_noising() = MakeEstimate(noise, seed);
  *measured.mutable_denoising() = MakeEstimate(denoise, seed);
  // The smaller of two tests' counts twice (Bonferroni).
  measured.set_p_value(
      std::min(1.0, 2 * std::min(SignFlipPValue(noise, seed), SignFlipPValue(denoise, seed))));
}

// Of attribution's estimates against exact effects.
v1::AttributionAgreement Agreement(absl::Span<const double> estimated, absl::Span<const double> exact,
                                   const std::function<std::string(int)>& name) {
  constexpr int kLeaders = 10;
  v1::AttributionAgreement agreement;
  agreement.set_component_count(static_cast<uint32_t>(exact.size()));
  agreement.set_spearman(SpearmanCorrelation(estimated, exact));
  agreement.set_leader_count(std::min<uint32_t>(kLeaders, static_cast<uint32_t>(exact.size())));
  const std::vector<int> found = LargestBySize(estimated, 2 * kLeaders);
  for (const int leader : LargestBySize(exact, kLeaders)) {
    if (std::count(found.begin(), found.end(), leader) == 0) agreement.add_missed_leaders(name(leader));
  }
  return agreement;
}

size_t CountOf(int count) { return static_cast<size_t>(count); }

// The mean over the tasks of each value.
std::vector<double> Means(absl::Span<const v1::CircuitPart> parts) {
  std::vector<double> means;
  for (int i = 0; i < parts[0].values_size(); ++i) {
    double sum = 0;
    for (const v1::CircuitPart& part : parts) sum += part.values(i);
    means.push_back(sum / static_cast<double>(parts.size()));
  }
  return means;
}

absl::Span<const v1::CircuitPart> FirstHalf(const std::vector<v1::CircuitPart>& parts) {
  return absl::MakeConstSpan(parts).subspan(0, parts.size() / 2);
}
absl::Span<const v1::CircuitPart> SecondHalf(const std::vector<v1::CircuitPart>& parts) {
  return absl::MakeConstSpan(parts).subspan(parts.size() / 2);
}

// Of all heads and of all MLPs, layer by layer, to layers of heads and then the MLP.
std::vector<double> InOrderOfThePass(const std::vector<double>& heads, const std::vector<double>& mlps) {
  std::vector<double> ordered;
  const size_t of_layer = heads.size() / mlps.size();
  for (size_t layer = 0; layer < mlps.size(); ++layer) {
    const auto first = heads.begin() + static_cast<std::ptrdiff_t>(layer * of_layer);
    ordered.insert(ordered.end(), first, first + static_cast<std::ptrdiff_t>(of_layer));
    ordered.push_back(mlps[layer]);
  }
  return ordered;
}

// Neurons among the best of either direction.
std::vector<Node> LeadingNeurons(const CircuitGraph& graph, const CircuitScores& scores, int count) {
  std::set<int> numbers;
  const int first = graph.head_count();
  for (const std::vector<double>* ranked : {&scores.noising_nodes, &scores.denoising_nodes}) {
    for (const int i : LargestBySize(absl::MakeConstSpan(*ranked).subspan(first), count)) {
      numbers.insert(first + i);
    }
  }
  std::vector<Node> nodes;
  for (const int number : numbers) nodes.push_back(graph.node(number));
  return nodes;
}

}  // namespace

std::vector<CircuitTask> CircuitTasks::Both() const {
  std::vector<CircuitTask> both = noising;
  both.insert(both.end(), denoising.begin(), denoising.end());
  return both;
}

std::string CircuitStage::KeyOf(const CircuitTask& task) const {
  return absl::StrCat(name, "/", subject, "/", task.key());
}

absl::StatusOr<std::vector<v1::CircuitPart>> RunStages(
    const ExperimentContext& context, const std::vector<CircuitStage>& stages,
    const std::vector<CircuitTask>& tasks,
    const std::function<absl::StatusOr<v1::CircuitPart>(const CircuitTask& task, size_t stage)>& compute,
    v1::CircuitResults& results) {
  std::vector<std::string> keys;
  for (const CircuitStage& stage : stages) {
    for (const CircuitTask& task : tasks) keys.push_back(stage.KeyOf(task));
  }
  const PartTraits<v1::CircuitPart> traits = {
      [](const v1::CircuitPart& part) { return static_cast<int>(part.run_count()); },
      [&](int i, const v1::CircuitPart& part) {
        const CircuitStage& stage = stages[static_cast<size_t>(i) / tasks.size()];
        return SizeOf(part) == stage.size && (stage.holds == nullptr || stage.holds(part));
      }};
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<v1::CircuitPart> parts,
                            RunParts<v1::CircuitPart>(
                                context, stages[0].name, keys,
                                [&](int i) {
                                  const auto index = static_cast<size_t>(i);
                                  return compute(tasks[index % tasks.size()], index / tasks.size());
                                },
                                traits));
  for (const v1::CircuitPart& part : parts) results.set_run_count(results.run_count() + part.run_count());
  return parts;
}

absl::StatusOr<std::vector<v1::CircuitPart>> RunTasks(const ExperimentContext& context,
                                                      const CircuitStage& stage,
                                                      const std::vector<CircuitTask>& tasks,
                                                      const CircuitCompute& compute,
                                                      v1::CircuitResults& results) {
  return RunStages(
      context, {stage}, tasks, [&](const CircuitTask& task, size_t) { return compute(task); }, results);
}

absl::StatusOr<CircuitScores> ScoreEverything(const ExperimentContext& context, const CircuitProbe& probe,
                                              const CircuitTasks& tasks, v1::CircuitResults& results) {
  const CircuitGraph& graph = probe.graph();
  CircuitScores scores;
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto nodes, RunTasks(
                            context, {"attribution to nodes", {0, CountOf(graph.node_count())}}, tasks.Both(),
                            [&](const CircuitTask& task) { return probe.NodeScores(task); }, results));
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto edges, RunTasks(
                            context, {"attribution to edges", {0, CountOf(graph.edge_count())}}, tasks.Both(),
                            [&](const CircuitTask& task) { return probe.EdgeScores(task); }, results));
  for (const v1::CircuitPart& part : nodes) scores.nodes.push_back(ScoresOf(part));
  for (const v1::CircuitPart& part : edges) scores.edges.push_back(ScoresOf(part));
  const absl::Span<const std::vector<float>> all = scores.nodes;
  scores.noising_nodes = MeanOf(all.subspan(0, tasks.noising.size()));
  scores.denoising_nodes = MeanOf(all.subspan(tasks.noising.size()));
  scores.mean_nodes = MeanOf(all);
  scores.mean_edges = MeanOf(scores.edges);
  return scores;
}

namespace {

// Exact effects of groups against the sums of their neurons' scores.
absl::Status CompareGroups(const ExperimentContext& context, const CircuitProbe& probe,
                           const CircuitTasks& tasks, const CircuitScores& scores,
                           v1::CircuitResults& results) {
  const CircuitGraph& graph = probe.graph();
  const int neurons = static_cast<int>(context.model.d_ff());
  const int size = std::max(1, (neurons + 15) / 16), groups = (neurons + size - 1) / size;
  const int layers = static_cast<int>(context.model.layer_count());
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto parts,
      RunTasks(
          context, {"neuron groups", {CountOf(layers * groups), 0}}, tasks.noising,
          [&](const CircuitTask& task) { return probe.NeuronGroupEffects(task, size); }, results));
  const std::vector<double> exact = Means(parts);
  std::vector<double> estimated;
  for (int layer = 0; layer < layers; ++layer) {
    for (int first = 0; first < neurons; first += size) {
      double sum = 0;
      for (int n = first; n < std::min(first + size, neurons); ++n) {
        sum += scores.noising_nodes[graph.NumberOf({layer, false, n})];
      }
      estimated.push_back(sum);
    }
  }
  *results.mutable_neuron_group_agreement() = Agreement(estimated, exact, [&](int i) {
    const int first = i % groups * size;
    return absl::StrCat("L", i / groups, ".N", first, "-", std::min(first + size, neurons) - 1);
  });
  return absl::OkStatus();
}

}  // namespace

absl::Status FindMembers(const ExperimentContext& context, const CircuitProbe& probe,
                         const CircuitOptions& options, const CircuitTasks& tasks, CircuitScores& scores,
                         v1::CircuitResults& results) {
  const CircuitGraph& graph = probe.graph();
  ABSTRACT_ASSIGN_OR_RETURN(const auto heads,
                            RunTasks(
                                context, {"heads", {CountOf(graph.head_count()), 0}}, tasks.Both(),
                                [&](const CircuitTask& task) { return probe.HeadEffects(task); }, results));
  ABSTRACT_ASSIGN_OR_RETURN(const auto mlps,
                            RunTasks(
                                context, {"MLPs", {context.model.layer_count(), 0}}, tasks.Both(),
                                [&](const CircuitTask& task) { return probe.MlpEffects(task); }, results));
  const std::vector<double> effects = InOrderOfThePass(Means(heads), Means(mlps));
  scores.heads_and_mlps = LargestBySize(effects, static_cast<int>(effects.size()));
  const std::vector<Node> neurons = LeadingNeurons(graph, scores, options.neuron_count);
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto of_neurons,
      RunTasks(
          context, {"neurons", {neurons.size(), 0}}, tasks.Both(),
          [&](const CircuitTask& task) { return probe.NodeEffects(task, neurons); }, results));
  std::vector<v1::MeasuredNode> all;
  for (int i = 0; i < graph.head_count() + static_cast<int>(neurons.size()); ++i) {
    const bool is_head = i < graph.head_count();
    const Node node = is_head ? graph.node(i) : neurons[static_cast<size_t>(i - graph.head_count())];
    v1::MeasuredNode& measured = all.emplace_back(Describe(node));
    measured.set_role(v1::CIRCUIT_ROLE_MEMBER);
    measured.set_attribution(scores.mean_nodes[graph.NumberOf(node)]);
    const auto& parts = is_head ? heads : of_neurons;
    SetEffects(FirstHalf(parts), SecondHalf(parts), is_head ? i : i - graph.head_count(), context.seed,
               measured);
  }
  CorrectPValues(all);
  *results.mutable_head_agreement() =
      Agreement(absl::MakeConstSpan(scores.noising_nodes).subspan(0, graph.head_count()),
                Means(FirstHalf(heads)), [&](int i) { return graph.node(i).name(); });
  ABSTRACT_RETURN_IF_ERROR(CompareGroups(context, probe, tasks, scores, results));
  std::erase_if(all, [&](const v1::MeasuredNode& node) {
    return !IsEffect(node.noising(), options.least_effect) &&
           !IsEffect(node.denoising(), options.least_effect);
  });
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return Size(a) > Size(b); });
  results.mutable_nodes()->Assign(all.begin(), all.end());
  return absl::OkStatus();
}

absl::Status FindDecoys(const ExperimentContext& context, const CircuitProbe& probe,
                        const CircuitOptions& options, const CircuitTasks& tasks,
                        v1::CircuitResults& results) {
  constexpr int kMostDecoys = 10;
  const CircuitGraph& graph = probe.graph();
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto parts, RunTasks(
                            context, {"direct attribution", {0, CountOf(graph.node_count())}}, tasks.Both(),
                            [&](const CircuitTask& task) { return probe.DirectScores(task); }, results));
  std::vector<std::vector<float>> rows;
  for (const v1::CircuitPart& part : parts) rows.push_back(ScoresOf(part));
  const std::vector<double> harmful = MeanOf(absl::MakeConstSpan(rows).subspan(0, tasks.noising.size()));
  const std::vector<double> harmless = MeanOf(absl::MakeConstSpan(rows).subspan(tasks.noising.size()));
  std::vector<double> larger;
  for (size_t i = 0; i < harmful.size(); ++i) {
    larger.push_back(std::abs(harmful[i]) > std::abs(harmless[i]) ? harmful[i] : harmless[i]);
  }
  std::set<std::string> found;
  for (v1::MeasuredNode& node : *results.mutable_nodes()) {
    found.insert(node.name());
    node.set_direct_attribution(harmful[graph.NumberOf(NodeOf(node))]);
  }
  std::vector<Node> candidates;
  for (const int number : LargestBySize(larger, kMostDecoys + static_cast<int>(found.size()))) {
    const Node node = graph.node(number);
    const bool writes = std::abs(larger[number]) >= options.least_decoy;
    if (writes && found.count(node.name()) == 0) candidates.push_back(node);
  }
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto effects,
      RunTasks(
          context, {"decoys", {candidates.size(), 0}}, tasks.Both(),
          [&](const CircuitTask& task) { return probe.NodeEffects(task, candidates); }, results));
  for (size_t i = 0; i < candidates.size(); ++i) {
    v1::MeasuredNode node = Describe(candidates[i]);
    SetEffects(FirstHalf(effects), SecondHalf(effects), static_cast<int>(i), context.seed, node);
    if (IsEffect(node.noising(), options.least_effect) || IsEffect(node.denoising(), options.least_effect))
      continue;
    node.set_role(v1::CIRCUIT_ROLE_DECOY);
    node.set_direct_attribution(larger[graph.NumberOf(candidates[i])]);
    *results.add_nodes() = std::move(node);
  }
  return absl::OkStatus();
}

namespace {

// All edges between what was found, the embedding and the logits, and attribution's best.
std::vector<std::string> CandidateEdges(const CircuitGraph& graph, const CircuitScores& scores,
                                        const v1::CircuitResults& results, int count) {
  std::set<std::string> senders = {"embed"}, receivers = {"final"};
  for (const v1::MeasuredNode& measured : results.nodes()) {
    if (measured.role() == v1::CIRCUIT_ROLE_DECOY) continue;
    const Node node = NodeOf(measured);
    senders.insert(node.sender());
    for (const std::string& receiver : graph.ReceiversOf(node)) receivers.insert(receiver);
  }
  std::vector<double> between(scores.mean_edges.size());
  std::set<int> numbers;
  for (const std::string& sender : senders) {
    for (const std::string& receiver : receivers) {
      const int number = graph.EdgeNumber(absl::StrCat(sender, "->", receiver));
      if (number >= 0) numbers.insert(number);
    }
  }
  if (static_cast<int>(numbers.size()) > count) {  // the best of them
    for (const int number : numbers) between[number] = scores.mean_edges[number];
    numbers.clear();
    for (const int number : LargestBySize(between, count)) numbers.insert(number);
  }
  for (const int number : LargestBySize(scores.mean_edges, count / 2)) numbers.insert(number);
  std::vector<std::string> edges;
  for (const int number : numbers) edges.push_back(graph.edge(number));
  return edges;
}

}  // namespace

absl::Status FindEdges(const ExperimentContext& context, const CircuitProbe& probe,
                       const CircuitOptions& options, const CircuitTasks& tasks, const CircuitScores& scores,
                       v1::CircuitResults& results) {
  const CircuitGraph& graph = probe.graph();
  const std::vector<std::string> edges = CandidateEdges(graph, scores, results, options.edge_count);
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto parts,
      RunTasks(
          context, {"edges", {edges.size(), 0}}, tasks.Both(),
          [&](const CircuitTask& task) { return probe.EdgeEffects(task, edges); }, results));
  std::vector<v1::MeasuredEdge> all;
  for (size_t i = 0; i < edges.size(); ++i) {
    v1::MeasuredEdge& edge = all.emplace_back();
    const size_t arrow = edges[i].find("->");
    edge.set_sender(edges[i].substr(0, arrow));
    edge.set_receiver(edges[i].substr(arrow + 2));
    edge.set_attribution(scores.mean_edges[graph.EdgeNumber(edges[i])]);
    SetEffects(FirstHalf(parts), SecondHalf(parts), static_cast<int>(i), context.seed, edge);
  }
  CorrectPValues(all);
  std::erase_if(all, [&](const v1::MeasuredEdge& edge) {
    return !IsEffect(edge.noising(), options.least_effect) &&
           !IsEffect(edge.denoising(), options.least_effect);
  });
  const auto size = [](const v1::MeasuredEdge& edge) {
    return std::max(std::abs(edge.noising().mean()), std::abs(edge.denoising().mean()));
  };
  std::stable_sort(all.begin(), all.end(), [&](const auto& a, const auto& b) { return size(a) > size(b); });
  results.mutable_edges()->Assign(all.begin(), all.end());
  return absl::OkStatus();
}

absl::StatusOr<CircuitScores> FindCircuit(const ExperimentContext& context, const CircuitProbe& probe,
                                          const CircuitOptions& options, const CircuitTasks& tasks,
                                          v1::CircuitResults& results) {
  ABSTRACT_ASSIGN_OR_RETURN(CircuitScores scores, ScoreEverything(context, probe, tasks, results));
  ABSTRACT_RETURN_IF_ERROR(FindMembers(context, probe, options, tasks, scores, results));
  ABSTRACT_RETURN_IF_ERROR(FindBackups(context, probe, options, tasks, scores, results));
  ABSTRACT_RETURN_IF_ERROR(FindDecoys(context, probe, options, tasks, results));
  ABSTRACT_RETURN_IF_ERROR(FindEdges(context, probe, options, tasks, scores, results));
  ABSTRACT_RETURN_IF_ERROR(FindBackupEdges(context, probe, options, tasks, results));
  return scores;
}

}  // namespace mechinterp
