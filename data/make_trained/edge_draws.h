#ifndef DATA_MAKE_TRAINED_EDGE_DRAWS_H_
#define DATA_MAKE_TRAINED_EDGE_DRAWS_H_

#include <vector>

#include "data/make_trained/circuit.h"
#include "data/trainer/random.h"

namespace mechinterp::make_trained {

// Which edges are patched while a circuit is trained. Plain data; may be read from many threads.
class EdgeDraws {
 public:
  EdgeDraws(const EdgeSpace& space, const Circuit& circuit);

  // Of the circuit: a whole variable, an edge, or any of the edges.
  EdgeMask OfCircuit(trainer::Random& random) const;
  // Of the rest: a whole sender that is of no variable, an edge, half of the edges, or all.
  EdgeMask OfRest(trainer::Random& random) const;

  // Every edge out of a sender, that is the sender itself.
  EdgeMask AllOf(int sender) const;

  const std::vector<Edge>& circuit_edges() const { return circuit_edges_; }
  const std::vector<Edge>& other_edges() const { return other_edges_; }
  // Where variables lie, the embedding among them; the other senders.
  const std::vector<int>& circuit_senders() const { return circuit_senders_; }
  const std::vector<int>& other_senders() const { return other_senders_; }

 private:
  EdgeMask Some(const std::vector<Edge>& edges, double probability, trainer::Random& random) const;

  const EdgeSpace& space_;
  std::vector<Edge> circuit_edges_, other_edges_;
  std::vector<int> circuit_senders_, other_senders_;
};

// Edges that are in either.
EdgeMask Union(const EdgeMask& a, const EdgeMask& b);

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_EDGE_DRAWS_H_
