#include "data/make_trained/edge_draws.h"

#include <algorithm>
#include <set>

namespace mechinterp::make_trained {

EdgeDraws::EdgeDraws(const EdgeSpace& space, const Circuit& circuit)
    : space_(space), circuit_edges_(circuit.Edges()) {
  std::set<int> senders;
  for (const Edge& edge : circuit_edges_) senders.insert(edge.sender);
  for (int sender = 0; sender < space.sender_count(); ++sender) {
    (senders.contains(sender) ? circuit_senders_ : other_senders_).push_back(sender);
  }
  for (const Edge& edge : space.edges()) {
    const bool is_circuit =
        std::find(circuit_edges_.begin(), circuit_edges_.end(), edge) != circuit_edges_.end();
    if (!is_circuit) other_edges_.push_back(edge);
  }
}

EdgeMask EdgeDraws::AllOf(int sender) const {
  EdgeMask mask = space_.NoEdges();
  const auto begin = mask.begin() + static_cast<std::ptrdiff_t>(space_.At({sender, 0}));
  std::fill(begin, begin + space_.receiver_count(), 1);
  return mask;
}

EdgeMask EdgeDraws::Some(const std::vector<Edge>& edges, double probability, trainer::Random& random) const {
  EdgeMask mask = space_.NoEdges();
  for (const Edge& edge : edges) {
    if (random.Chance(probability)) mask[space_.At(edge)] = 1;
  }
  return mask;
}

EdgeMask EdgeDraws::OfCircuit(trainer::Random& random) const {
  const size_t kind = random.Index(3);
  if (kind == 0) return AllOf(random.Choose(circuit_senders_));
  if (kind == 1) return Some({random.Choose(circuit_edges_)}, 1, random);
  return Some(circuit_edges_, 0.5, random);
}

EdgeMask EdgeDraws::OfRest(trainer::Random& random) const {
  const size_t kind = random.Index(4);
  if (kind == 0) return AllOf(random.Choose(other_senders_));
  if (kind == 1) return Some({random.Choose(other_edges_)}, 1, random);
  return Some(other_edges_, kind == 2 ? 0.5 : 1, random);
}

EdgeMask Union(const EdgeMask& a, const EdgeMask& b) {
  EdgeMask both = a;
  for (size_t i = 0; i < both.size(); ++i) both[i] = both[i] | b[i];
  return both;
}

}  // namespace mechinterp::make_trained
