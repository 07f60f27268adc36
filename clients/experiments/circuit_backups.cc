#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/experiments/circuit_measures.h"
#include "clients/experiments/circuit_nodes.h"
#include "clients/experiments/circuit_statistics.h"
#include "clients/experiments/summaries.h"
#include "services/common/status_macros.h"

namespace mechinterp {

using Node = CircuitGraph::Node;

namespace {

std::set<std::string> NamesOf(const v1::CircuitResults& results) {
  std::set<std::string> names;
  for (const v1::MeasuredNode& node : results.nodes()) names.insert(node.name());
  return names;
}

// Nodes that are ablated together in one round.
using Leaders = std::vector<Node>;

std::string KeyOf(const Leaders& leaders) {
  return absl::StrJoin(leaders, "+",
                       [](std::string* out, const Node& node) { absl::StrAppend(out, node.name()); });
}

// One round's look at several sets of leaders, each ablated by itself.
class Round {
 public:
  Round(const ExperimentContext& context, const CircuitProbe& probe, const CircuitOptions& options,
        const CircuitTasks& tasks, const CircuitScores& scores, const std::vector<Leaders>& leaders)
      : context_(context),
        probe_(probe),
        options_(options),
        tasks_(tasks),
        scores_(scores),
        leaders_(leaders) {}

  // Nodes that move the metric with leaders ablated, and did not before: by leaders.
  absl::StatusOr<std::vector<v1::MeasuredNode>> Find(const std::set<std::string>& known,
                                                     v1::CircuitResults& results) const {
    const std::vector<CircuitPartSize> of_scores(leaders_.size(),
                                                 {0, static_cast<size_t>(probe_.graph().node_count())});
    ABSTRACT_ASSIGN_OR_RETURN(const auto scores, ForEach(
                                                     "leaders ablated", of_scores,
                                                     [&](const CircuitTask& task, size_t i) {
                                                       return probe_.NodeScores(task, leaders_[i]);
                                                     },
                                                     results));
    std::vector<std::vector<Node>> candidates;
    std::vector<CircuitPartSize> of_candidates;
    for (size_t i = 0; i < leaders_.size(); ++i) {
      candidates.push_back(Candidates(leaders_[i], Of(scores, i), known));
      of_candidates.push_back({candidates.back().size(), 0});
    }
    ABSTRACT_ASSIGN_OR_RETURN(const auto before, ForEach(
                                                     "what they hid, before", of_candidates,
                                                     [&](const CircuitTask& task, size_t i) {
                                                       return probe_.NodeEffects(task, candidates[i]);
                                                     },
                                                     results));
    ABSTRACT_ASSIGN_OR_RETURN(const auto after, ForEach(
                                                    "what they hid, after", of_candidates,
                                                    [&](const CircuitTask& task, size_t i) {
                                                      return probe_.NodeEffects(task, candidates[i],
                                                                                leaders_[i]);
                                                    },
                                                    results));
    std::vector<v1::MeasuredNode> found;
    for (size_t i = 0; i < leaders_.size(); ++i) {
      for (size_t c = 0; c < candidates[i].size(); ++c) {
        const int index = static_cast<int>(c);
        found.push_back(
            Judge(candidates[i][c], leaders_[i], Column(Of(before, i), index), Column(Of(after, i), index)));
      }
    }
    CorrectPValues(found);
    std::erase_if(found, [](const auto& node) { return node.role() != v1::CIRCUIT_ROLE_BACKUP; });
    return found;
  }

 private:
  using Parts = std::vector<v1::CircuitPart>;

  // A part of these sizes for each set of leaders and task.
  template <typename Compute>
  absl::StatusOr<Parts> ForEach(const std::string& name, const std::vector<CircuitPartSize>& sizes,
                                const Compute& compute, v1::CircuitResults& results) const {
    std::vector<CircuitStage> stages;
    for (size_t i = 0; i < leaders_.size(); ++i) stages.push_back({name, sizes[i], KeyOf(leaders_[i])});
    return RunStages(context_, stages, tasks_.noising, compute, results);
  }
  // Those of one set of leaders.
  absl::Span<const v1::CircuitPart> Of(const Parts& parts, size_t leaders) const {
    const size_t tasks = tasks_.noising.size();
    return absl::MakeConstSpan(parts).subspan(leaders * tasks, tasks);
  }

  // Those whose scores the ablation changes most.
  std::vector<Node> Candidates(const Leaders& leaders, absl::Span<const v1::CircuitPart> parts,
                               const std::set<std::string>& known) const {
    constexpr int kCandidates = 12;
    std::vector<std::vector<float>> rows;
    for (const v1::CircuitPart& part : parts) rows.push_back(ScoresOf(part));
    std::vector<double> growth = MeanOf(rows);
    for (size_t i = 0; i < growth.size(); ++i) growth[i] -= scores_.noising_nodes[i];
    for (const Node& leader : leaders) growth[probe_.graph().NumberOf(leader)] = 0;
    std::vector<Node> candidates;
    for (const int number : LargestBySize(growth, kCandidates + static_cast<int>(known.size()))) {
      const Node node = probe_.graph().node(number);
      const bool is_small = std::abs(growth[number]) < options_.least_effect / 2;
      if (!is_small && known.count(node.name()) == 0 && candidates.size() < kCandidates)
        candidates.push_back(node);
    }
    return candidates;
  }

  // Without a role unless it is a backup.
  v1::MeasuredNode Judge(const Node& candidate, const Leaders& leaders, const std::vector<double>& before,
                         const std::vector<double>& after) const {
    std::vector<double> growth;
    for (size_t pair = 0; pair < before.size(); ++pair) growth.push_back(after[pair] - before[pair]);
    v1::MeasuredNode node = Describe(candidate);
    *node.mutable_conditional() = MakeEstimate(after, context_.seed);
    *node.mutable_noising() = MakeEstimate(before, context_.seed);
    node.set_p_value(SignFlipPValue(growth, context_.seed));
    node.set_attribution(scores_.mean_nodes[probe_.graph().NumberOf(candidate)]);
    for (const Node& leader : leaders) node.add_backs_up(leader.name());
    if (IsEffect(node.conditional(), options_.least_effect) &&
        IsEffect(MakeEstimate(growth, context_.seed), options_.least_effect)) {
      node.set_role(v1::CIRCUIT_ROLE_BACKUP);
    }
    return node;
  }

  const ExperimentContext& context_;
  const CircuitProbe& probe_;
  const CircuitOptions& options_;
  const CircuitTasks& tasks_;
  const CircuitScores& scores_;
  const std::vector<Leaders>& leaders_;
};

}  // namespace

absl::Status FindBackups(const ExperimentContext& context, const CircuitProbe& probe,
                         const CircuitOptions& options, const CircuitTasks& tasks,
                         const CircuitScores& scores, v1::CircuitResults& results) {
  std::vector<Leaders> round;
  for (int i = 0; i < std::min(options.leader_count, results.nodes_size()); ++i) {
    round.push_back({NodeOf(results.nodes(i))});
  }
  while (!round.empty() && static_cast<int>(results.round_count()) < options.most_rounds) {
    results.set_round_count(results.round_count() + 1);
    std::map<std::string, v1::MeasuredNode> found;  // by name, the largest of each
    ABSTRACT_ASSIGN_OR_RETURN(
        const auto backups,
        Round(context, probe, options, tasks, scores, round).Find(NamesOf(results), results));
    for (const v1::MeasuredNode& backup : backups) {
      v1::MeasuredNode& kept = found[backup.name()];
      if (std::abs(backup.conditional().mean()) > std::abs(kept.conditional().mean())) kept = backup;
    }
    // Next, each with what it backs up.
    std::vector<v1::MeasuredNode> ordered;
    for (auto& [name, node] : found) ordered.push_back(std::move(node));
    std::stable_sort(ordered.begin(), ordered.end(),
                     [](const auto& a, const auto& b) { return Size(a) > Size(b); });
    round.clear();
    for (const v1::MeasuredNode& backup : ordered) {
      *results.add_nodes() = backup;
      Leaders both = {NodeOf(backup)};
      for (const std::string& name : backup.backs_up()) {
        for (const v1::MeasuredNode& node : results.nodes()) {
          if (node.name() == name) both.push_back(NodeOf(node));
        }
      }
      if (static_cast<int>(round.size()) < options.leader_count) round.push_back(std::move(both));
    }
  }
  return absl::OkStatus();
}

namespace {

// What a backup's edges are measured among: those that the leaders' ablation cuts, and then its own.
struct BackupEdges {
  v1::RunCircuitRequest request;
  std::vector<std::string> own;
};

BackupEdges EdgesOf(const CircuitGraph& graph, const v1::MeasuredNode& backup,
                    const v1::CircuitResults& results) {
  BackupEdges edges;
  std::set<std::string> leaders, senders = {"embed"}, receivers = {"final"};
  for (const v1::MeasuredNode& node : results.nodes()) {
    const bool is_leader = std::count(backup.backs_up().begin(), backup.backs_up().end(), node.name()) > 0;
    if (is_leader) leaders.insert(NodeOf(node).sender());
    if (is_leader || node.name() == backup.name() || node.role() == v1::CIRCUIT_ROLE_DECOY) continue;
    senders.insert(NodeOf(node).sender());
    for (const std::string& receiver : graph.ReceiversOf(NodeOf(node))) receivers.insert(receiver);
  }
  for (int i = 0; i < graph.edge_count(); ++i) {
    const std::string& edge = graph.edge(i);
    if (leaders.count(edge.substr(0, edge.find("->"))) > 0) edges.request.add_edges(edge);
  }
  const auto add = [&](const std::string& sender, const std::string& receiver) {
    const std::string edge = absl::StrCat(sender, "->", receiver);
    if (graph.EdgeNumber(edge) >= 0 && leaders.count(sender) == 0) edges.own.push_back(edge);
  };
  for (const std::string& receiver : receivers) add(NodeOf(backup).sender(), receiver);
  for (const std::string& sender : senders) {
    for (const std::string& receiver : graph.ReceiversOf(NodeOf(backup))) add(sender, receiver);
  }
  const auto cut = static_cast<uint32_t>(edges.request.edges_size());
  const auto add_circuit = [&] {
    v1::CircuitMembers& circuit = *edges.request.add_circuits();
    circuit.set_complement(true);
    circuit.set_leading(cut);
    return &circuit;
  };
  add_circuit();
  for (const std::string& edge : edges.own) {
    add_circuit()->add_members(static_cast<uint32_t>(edges.request.edges_size()));
    edges.request.add_edges(edge);
  }
  return edges;
}

}  // namespace

absl::Status FindBackupEdges(const ExperimentContext& context, const CircuitProbe& probe,
                             const CircuitOptions& options, const CircuitTasks& tasks,
                             v1::CircuitResults& results) {
  std::set<std::string> known;
  for (const v1::MeasuredEdge& edge : results.edges()) {
    known.insert(absl::StrCat(edge.sender(), "->", edge.receiver()));
  }
  for (const v1::MeasuredNode& backup : results.nodes()) {
    if (backup.role() != v1::CIRCUIT_ROLE_BACKUP) continue;
    const BackupEdges edges = EdgesOf(probe.graph(), backup, results);
    ABSTRACT_ASSIGN_OR_RETURN(
        const auto parts,
        RunTasks(
            context, {"backups' edges", {2 * (1 + edges.own.size()), 0}, backup.name()}, tasks.noising,
            [&](const CircuitTask& task) { return probe.Circuits(task, edges.request); }, results));
    for (size_t i = 0; i < edges.own.size(); ++i) {
      std::vector<double> effects;
      for (const v1::CircuitPart& part : parts) {
        effects.push_back(part.values(0) - part.values(1 + static_cast<int>(i)));
      }
      v1::MeasuredEdge edge;
      *edge.mutable_noising() = MakeEstimate(effects, context.seed);
      if (!IsEffect(edge.noising(), options.least_effect) || !known.insert(edges.own[i]).second) continue;
      const size_t arrow = edges.own[i].find("->");
      edge.set_sender(edges.own[i].substr(0, arrow));
      edge.set_receiver(edges.own[i].substr(arrow + 2));
      edge.set_p_value(SignFlipPValue(effects, context.seed));
      *edge.mutable_conditional_on() = backup.backs_up();
      *results.add_edges() = std::move(edge);
    }
  }
  return absl::OkStatus();
}

}  // namespace mechinterp
