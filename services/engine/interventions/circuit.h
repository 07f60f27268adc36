#ifndef SERVICES_ENGINE_INTERVENTIONS_CIRCUIT_H_
#define SERVICES_ENGINE_INTERVENTIONS_CIRCUIT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/interventions/edge.h"

namespace mechinterp::engine {

// A part of a model's graph that computes on the prompt, while everything else stays as it is in the
// source prompt's run.

struct Edge {
  Sender sender;
  Receiver receiver;
  friend auto operator<=>(const Edge&, const Edge&) = default;
};

// A head, an MLP, or one of an MLP's neurons.
struct Node {
  enum class Kind { kHead, kMlp, kNeuron };
  Kind kind = Kind::kHead;
  int layer = 0;
  int index = 0;  // of the head or the neuron
  friend auto operator<=>(const Node&, const Node&) = default;
};

// "L0.H1->L2.q3", "embed->L0.mlp_in", "L2.mlp->final"; "L0.H1", "L2.mlp", "L2.N317".
std::string NameOf(const Edge& edge);
std::string NameOf(const Node& node);
// InvalidArgument, saying why, where a name is none, or none of this model's; for an edge also where
// the receiver comes before the sender.
absl::StatusOr<Edge> EdgeOfName(absl::string_view name, const ModelConfig& config);
absl::StatusOr<Node> NodeOfName(absl::string_view name, const ModelConfig& config);

struct Circuit {
  // For each of Receivers(), by the senders that come before it: whether it sees what they compute
  // here, or, where not, what they compute in the source's run.
  std::vector<std::vector<bool>> sees;
  // MLPs of which only some neurons compute here, ascending.
  std::map<int, std::vector<int>> neurons;

  int64_t EdgeCount() const;
};

// The circuit of these edges; or of all the others.
Circuit CircuitOfEdges(const ModelConfig& config, absl::Span<const Edge> edges, bool complement);
// The circuit of these nodes, with the embedding, the logits, and all edges between them; or of all
// the other nodes. A neuron of an MLP that is among the nodes is in it already.
Circuit CircuitOfNodes(const ModelConfig& config, absl::Span<const Node> nodes, bool complement);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_CIRCUIT_H_
