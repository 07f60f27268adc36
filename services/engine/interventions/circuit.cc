#include "services/engine/interventions/circuit.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace mechinterp::engine {
namespace {

constexpr absl::string_view kArrow = "->";

Circuit EmptyCircuit(const ModelConfig& config, bool sees) {
  Circuit circuit;
  for (const Receiver& receiver : Receivers(config)) {
    circuit.sees.emplace_back(SenderCount(receiver, config), sees);
  }
  return circuit;
}

// Which nodes are in a circuit: heads by layer, and neurons by layer.
struct NodeSets {
  std::vector<std::set<int>> heads;
  std::vector<std::set<int>> neurons;
};

std::set<int> Others(const std::set<int>& indices, int count) {
  std::set<int> others;
  for (int i = 0; i < count; ++i) {
    if (indices.count(i) == 0) others.insert(others.end(), i);
  }
  return others;
}

NodeSets SetsOf(const ModelConfig& config, absl::Span<const Node> nodes, bool complement) {
  NodeSets sets{std::vector<std::set<int>>(config.layer_count()),
                std::vector<std::set<int>>(config.layer_count())};
  for (const Node& node : nodes) {
    switch (node.kind) {
      case Node::Kind::kHead:
        sets.heads[node.layer].insert(node.index);
        break;
      case Node::Kind::kNeuron:
        sets.neurons[node.layer].insert(node.index);
        break;
      case Node::Kind::kMlp:
        for (int n = 0; n < config.d_ff; ++n) sets.neurons[node.layer].insert(n);
        break;
    }
  }
  if (!complement) return sets;
  for (std::set<int>& heads : sets.heads) heads = Others(heads, config.head_count);
  for (std::set<int>& neurons : sets.neurons) neurons = Others(neurons, config.d_ff);
  return sets;
}

// Whether a receiver is a part of any of the nodes.
bool Reads(const NodeSets& sets, const Receiver& receiver, const ModelConfig& config) {
  switch (receiver.kind) {
    case Receiver::Kind::kQuery:
      return sets.heads[receiver.layer].count(receiver.head) > 0;
    case Receiver::Kind::kKey:
    case Receiver::Kind::kValue: {
      const int group = config.head_count / config.key_value_head_count;
      const std::set<int>& heads = sets.heads[receiver.layer];
      const auto first = heads.lower_bound(receiver.head * group);
      return first != heads.end() && *first < (receiver.head + 1) * group;
    }
    case Receiver::Kind::kMlp:
      return !sets.neurons[receiver.layer].empty();
    case Receiver::Kind::kFinal:
      break;
  }
  return true;
}

bool Writes(const NodeSets& sets, const Sender& sender) {
  switch (sender.kind) {
    case Sender::Kind::kEmbedding:
      return true;
    case Sender::Kind::kHead:
      return sets.heads[sender.layer].count(sender.head) > 0;
    case Sender::Kind::kMlp:
      break;
  }
  return !sets.neurons[sender.layer].empty();
}

}  // namespace

std::string NameOf(const Edge& edge) {
  return absl::StrCat(NameOf(edge.sender), kArrow, NameOf(edge.receiver));
}

std::string NameOf(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kHead:
      return absl::StrCat("L", node.layer, ".H", node.index);
    case Node::Kind::kNeuron:
      return absl::StrCat("L", node.layer, ".N", node.index);
    case Node::Kind::kMlp:
      break;
  }
  return absl::StrCat("L", node.layer, ".mlp");
}

absl::StatusOr<Edge> EdgeOfName(absl::string_view name, const ModelConfig& config) {
  const auto no_edge = absl::InvalidArgumentError(absl::StrCat(
      "\"", name, "\" is no edge; one is named as L0.H1->L2.q3, embed->L0.mlp_in, L2.mlp->final"));
  const size_t arrow = name.find(kArrow);
  if (arrow == absl::string_view::npos) return no_edge;
  const absl::string_view from = name.substr(0, arrow), to = name.substr(arrow + kArrow.size());
  const std::optional<Sender> sender = SenderOfName(from, config);
  if (!sender) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", from, "\" writes nothing to this model's residual stream; embed, L0.H1 and L2.mlp do"));
  }
  const std::optional<Receiver> receiver = ReceiverOfName(to, config);
  if (!receiver) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", to, "\" reads nothing of this model's residual stream; L2.q3, L2.k0, L2.v0, L2.mlp_in ",
        "and final do"));
  }
  if (IndexOf(*sender, config) >= SenderCount(*receiver, config)) {
    return absl::InvalidArgumentError(absl::StrCat(to, " comes before ", from));
  }
  const Edge edge{*sender, *receiver};
  if (NameOf(edge) != name) return no_edge;  // zeros or blanks before a number
  return edge;
}

absl::StatusOr<Node> NodeOfName(absl::string_view name, const ModelConfig& config) {
  std::optional<Node> node;
  if (const std::optional<Sender> sender = SenderOfName(name, config)) {
    if (sender->kind == Sender::Kind::kHead) node = {Node::Kind::kHead, sender->layer, sender->head};
    if (sender->kind == Sender::Kind::kMlp) node = {Node::Kind::kMlp, sender->layer, 0};
  }
  // What a neuron's name begins with is its MLP's.
  const size_t dot = name.find(".N");
  int neuron = 0;
  if (dot != absl::string_view::npos && absl::SimpleAtoi(name.substr(dot + 2), &neuron) && neuron >= 0 &&
      neuron < config.d_ff) {
    const auto mlp = SenderOfName(absl::StrCat(name.substr(0, dot), ".mlp"), config);
    if (mlp) node = {Node::Kind::kNeuron, mlp->layer, neuron};
  }
  if (node && NameOf(*node) == name) return *node;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is no node of this model; one is named as L0.H1, L2.mlp, L2.N317"));
}

int64_t Circuit::EdgeCount() const {
  return std::accumulate(sees.begin(), sees.end(), int64_t{0}, [](int64_t sum, const std::vector<bool>& row) {
    return sum + std::count(row.begin(), row.end(), true);
  });
}

Circuit CircuitOfEdges(const ModelConfig& config, absl::Span<const Edge> edges, bool complement) {
  Circuit circuit = EmptyCircuit(config, complement);
  for (const Edge& edge : edges) {
    circuit.sees[IndexOf(edge.receiver, config)][IndexOf(edge.sender, config)] = !complement;
  }
  return circuit;
}

Circuit CircuitOfNodes(const ModelConfig& config, absl::Span<const Node> nodes, bool complement) {
  const NodeSets sets = SetsOf(config, nodes, complement);
  Circuit circuit = EmptyCircuit(config, false);
  const std::vector<Sender> senders = Senders(config);
  const std::vector<Receiver> receivers = Receivers(config);
  for (size_t r = 0; r < receivers.size(); ++r) {
    if (!Reads(sets, receivers[r], config)) continue;
    std::vector<bool>& row = circuit.sees[r];
    for (size_t s = 0; s < row.size(); ++s) row[s] = Writes(sets, senders[s]);
  }
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    const std::set<int>& neurons = sets.neurons[layer];
    if (!neurons.empty() && static_cast<int>(neurons.size()) < config.d_ff) {
      circuit.neurons[layer].assign(neurons.begin(), neurons.end());
    }
  }
  return circuit;
}

}  // namespace mechinterp::engine
