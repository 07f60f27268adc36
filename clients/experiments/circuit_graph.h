#ifndef CLIENTS_EXPERIMENTS_CIRCUIT_GRAPH_H_
#define CLIENTS_EXPERIMENTS_CIRCUIT_GRAPH_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// The nodes and edges of a served model, numbered, so that scores of all of them are plain vectors.
// Immutable; thread-safe.
class CircuitGraph {
 public:
  explicit CircuitGraph(const v1::GetModelResponse& model);

  // Heads by layer, then single neurons by layer.
  struct Node {
    int layer = 0;
    bool is_head = true;
    int index = 0;  // of the head or the neuron

    std::string name() const;  // "L3.H5", "L4.N317", as RunCircuit has it
    // What edges begin with: the neuron's MLP, "L4.mlp".
    std::string sender() const;
  };
  int head_count() const { return layers_ * heads_; }
  int node_count() const { return layers_ * (heads_ + neurons_); }
  Node node(int number) const;
  int NumberOf(const Node& node) const;
  // As patching and ablation call it.
  v1::Component ComponentOf(const Node& node) const;

  // Edges, named as in AttributionEdge, by receiver and of each by sender.
  int edge_count() const { return static_cast<int>(edges_.size()); }
  const std::string& edge(int number) const { return edges_[number]; }
  // -1: none of this model's.
  int EdgeNumber(std::string_view name) const;

  // An exact patch of an edge, but for the source that it reads.
  v1::Intervention PathPatchOf(int number) const;

  // Heads and whole MLPs, in the order of the pass, as RunCircuit names them; and how many of the model's
  // edges there are between them, the embedding and the logits, where of each so large a share is there:
  // of an edge the product of its ends' shares.
  std::vector<std::string> HeadsAndMlps() const;
  double EdgesBetween(const std::vector<double>& shares) const;
  // A node's place among them.
  int HeadOrMlpOf(const Node& node) const {
    return node.layer * (heads_ + 1) + (node.is_head ? node.index : heads_);
  }
  int neurons_per_layer() const { return neurons_; }

  // A node's receivers: "L2.q3", "L2.k1", "L2.v1", or "L2.mlp_in".
  std::vector<std::string> ReceiversOf(const Node& node) const;

 private:
  int layers_, heads_, key_heads_, neurons_;
  struct Place {  // of a sender or a receiver
    std::string name;
    v1::HookPoint point;
    int layer = 0;
    int head = -1;  // -1: no head axis
  };
  std::vector<Place> senders_, receivers_;
  std::vector<std::string> edges_;
  std::vector<std::pair<int, int>> ends_;              // of each edge, in senders_ and receivers_
  std::unordered_map<std::string_view, int> numbers_;  // views of edges_
};

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_CIRCUIT_GRAPH_H_
