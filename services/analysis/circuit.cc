#include "services/analysis/circuit.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace mechinterp {
namespace {

constexpr size_t kEdgesIntoComponent = 2;
constexpr size_t kLeadersOnInputAndOutput = 3;
constexpr char kInputId[] = "input";
constexpr char kOutputId[] = "output";

// Place in the forward pass. Components of equal stage cannot feed each other.
std::pair<uint32_t, int> Stage(const v1::RankedComponent& ranked) {
  return {ranked.component().layer(), ranked.component().kind() == v1::COMPONENT_KIND_HEAD ? 0 : 1};
}

void AddNode(const std::string& id, v1::CircuitNodeKind kind, const std::string& label,
             v1::Circuit& circuit) {
  v1::CircuitNode& node = *circuit.add_nodes();
  node.set_id(id);
  node.set_kind(kind);
  node.set_label(label);
}

void AddEdge(const std::string& from, const std::string& to, double weight, v1::Circuit& circuit) {
  v1::CircuitEdge& edge = *circuit.add_edges();
  edge.set_from(from);
  edge.set_to(to);
  edge.set_weight(weight);
}

// The leaders in the order of the forward pass; the better first within a stage.
std::vector<v1::RankedComponent> Leaders(absl::Span<const v1::RankedComponent> ranking, int component_count) {
  std::vector<v1::RankedComponent> leaders;
  for (const v1::RankedComponent& ranked : ranking) {
    if (static_cast<int>(leaders.size()) >= component_count || !(ranked.score() > 0)) break;
    leaders.push_back(ranked);
  }
  std::stable_sort(leaders.begin(), leaders.end(),
                   [](const auto& a, const auto& b) { return Stage(a) < Stage(b); });
  return leaders;
}

// The strongest earlier components for leaders[index]: those of highest score,
// since the other factor of the weight is the same for all.
std::vector<const v1::RankedComponent*> Feeders(const std::vector<v1::RankedComponent>& leaders,
                                                size_t index) {
  std::vector<const v1::RankedComponent*> feeders;
  for (const v1::RankedComponent& leader : leaders) {
    if (Stage(leader) < Stage(leaders[index])) feeders.push_back(&leader);
  }
  std::stable_sort(feeders.begin(), feeders.end(), [](auto* a, auto* b) { return a->score() > b->score(); });
  if (feeders.size() > kEdgesIntoComponent)
    feeders.erase(feeders.begin() + kEdgesIntoComponent, feeders.end());
  return feeders;
}

}  // namespace

v1::Circuit BuildCircuit(absl::Span<const v1::RankedComponent> ranking, int component_count) {
  v1::Circuit circuit;
  const std::vector<v1::RankedComponent> leaders = Leaders(ranking, component_count);
  if (leaders.empty()) return circuit;

  AddNode(kInputId, v1::CIRCUIT_NODE_KIND_INPUT, "prompt", circuit);
  std::vector<double> scores;
  for (const v1::RankedComponent& leader : leaders) {
    AddNode(leader.component().name(), v1::CIRCUIT_NODE_KIND_COMPONENT, leader.component().name(), circuit);
    *circuit.mutable_nodes()->rbegin()->mutable_component() = leader;
    scores.push_back(leader.score());
  }
  AddNode(kOutputId, v1::CIRCUIT_NODE_KIND_OUTPUT, "refusal", circuit);

  std::sort(scores.rbegin(), scores.rend());
  const double best = scores[0];
  const double leading = scores[std::min(scores.size(), kLeadersOnInputAndOutput) - 1];

  // Input and output count as scoring like the best component, so that the
  // largest product is best * best.
  std::set<std::string> feeding;
  for (size_t i = 0; i < leaders.size(); ++i) {
    const std::string& name = leaders[i].component().name();
    const double share = leaders[i].score() / best;
    const auto feeders = Feeders(leaders, i);
    if (feeders.empty() || leaders[i].score() >= leading) AddEdge(kInputId, name, share, circuit);
    for (const v1::RankedComponent* feeder : feeders) {
      feeding.insert(feeder->component().name());
      AddEdge(feeder->component().name(), name, feeder->score() / best * share, circuit);
    }
  }
  for (const v1::RankedComponent& leader : leaders) {
    const std::string& name = leader.component().name();
    if (!feeding.contains(name) || leader.score() >= leading) {
      AddEdge(name, kOutputId, leader.score() / best, circuit);
    }
  }
  return circuit;
}

v1::Circuit CircuitOf(const v1::PatchingResults& patching, int component_count) {
  const std::vector<v1::RankedComponent> ranking(patching.ranking().begin(), patching.ranking().end());
  return BuildCircuit(ranking, component_count);
}

}  // namespace mechinterp
