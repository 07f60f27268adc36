#include "clients/experiments/circuit_graph.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace mechinterp {
namespace {

std::string Mlp(int layer) { return absl::StrCat("L", layer, ".mlp"); }
std::string MlpInput(int layer) { return absl::StrCat("L", layer, ".mlp_in"); }

}  // namespace

std::string CircuitGraph::Node::name() const {
  return absl::StrCat("L", layer, is_head ? ".H" : ".N", index);
}

std::string CircuitGraph::Node::sender() const { return is_head ? name() : Mlp(layer); }

CircuitGraph::CircuitGraph(const v1::GetModelResponse& model)
    : layers_(static_cast<int>(model.layer_count())),
      heads_(static_cast<int>(model.head_count())),
      key_heads_(static_cast<int>(model.key_value_head_count())),
      neurons_(static_cast<int>(model.d_ff())) {
  senders_ = {{"embed", v1::HOOK_POINT_EMBED}};
  const auto read = [&](const Place& receiver) {
    for (size_t s = 0; s < senders_.size(); ++s) {
      edges_.push_back(absl::StrCat(senders_[s].name, "->", receiver.name));
      ends_.emplace_back(static_cast<int>(s), static_cast<int>(receivers_.size()));
    }
    receivers_.push_back(receiver);
  };
  const auto read_by_heads = [&](v1::HookPoint point, const char* word, int layer, int heads) {
    for (int head = 0; head < heads; ++head) read({absl::StrCat("L", layer, word, head), point, layer, head});
  };
  for (int layer = 0; layer < layers_; ++layer) {
    read_by_heads(v1::HOOK_POINT_Q_INPUT, ".q", layer, heads_);
    read_by_heads(v1::HOOK_POINT_K_INPUT, ".k", layer, key_heads_);
    read_by_heads(v1::HOOK_POINT_V_INPUT, ".v", layer, key_heads_);
    for (int head = 0; head < heads_; ++head) {
      senders_.push_back({Node{layer, true, head}.name(), v1::HOOK_POINT_RESULT, layer, head});
    }
    read({MlpInput(layer), v1::HOOK_POINT_MLP_IN, layer});
    senders_.push_back({Mlp(layer), v1::HOOK_POINT_MLP_OUT, layer});
  }
  read({"final", v1::HOOK_POINT_RESID_POST, layers_ - 1});
  for (size_t i = 0; i < edges_.size(); ++i) numbers_[edges_[i]] = static_cast<int>(i);
}

v1::Intervention CircuitGraph::PathPatchOf(int number) const {
  const Place &sender = senders_[ends_[number].first], &receiver = receivers_[ends_[number].second];
  v1::Intervention intervention;
  const auto set_site = [](const Place& place, v1::HookSite& site) {
    site.set_point(place.point);
    site.set_layer(static_cast<uint32_t>(place.layer));
  };
  set_site(receiver, *intervention.mutable_site());
  if (receiver.head >= 0) intervention.mutable_selector()->add_heads(static_cast<uint32_t>(receiver.head));
  v1::PathPatch& path = *intervention.mutable_path_patch();
  set_site(sender, *path.mutable_sender());
  if (sender.head >= 0) path.set_sender_head(static_cast<uint32_t>(sender.head));
  return intervention;
}

CircuitGraph::Node CircuitGraph::node(int number) const {
  if (number < head_count()) return {number / heads_, true, number % heads_};
  number -= head_count();
  return {number / neurons_, false, number % neurons_};
}

int CircuitGraph::NumberOf(const Node& node) const {
  return node.is_head ? node.layer * heads_ + node.index : head_count() + node.layer * neurons_ + node.index;
}

v1::Component CircuitGraph::ComponentOf(const Node& node) const {
  v1::Component component;
  component.set_layer(static_cast<uint32_t>(node.layer));
  const auto index = static_cast<uint32_t>(node.index);
  if (node.is_head) {
    component.set_kind(v1::COMPONENT_KIND_HEAD);
    component.set_head(index);
  } else {
    component.set_kind(v1::COMPONENT_KIND_NEURON_GROUP);
    component.set_neuron_begin(index);
    component.set_neuron_end(index + 1);
  }
  component.set_name(node.name());
  return component;
}

int CircuitGraph::EdgeNumber(std::string_view name) const {
  const auto found = numbers_.find(name);
  return found == numbers_.end() ? -1 : found->second;
}

std::vector<std::string> CircuitGraph::HeadsAndMlps() const {
  std::vector<std::string> names;
  for (size_t s = 1; s < senders_.size(); ++s) names.push_back(senders_[s].name);
  return names;
}

double CircuitGraph::EdgesBetween(const std::vector<double>& shares) const {
  const auto share = [&](int layer, int index) { return shares[layer * (heads_ + 1) + index]; };
  std::vector<double> reads;
  for (const Place& receiver : receivers_) {
    double part = receiver.point == v1::HOOK_POINT_RESID_POST ? 1 : 0;
    if (receiver.point == v1::HOOK_POINT_Q_INPUT) part = share(receiver.layer, receiver.head);
    if (receiver.point == v1::HOOK_POINT_MLP_IN) part = share(receiver.layer, heads_);
    if (receiver.point == v1::HOOK_POINT_K_INPUT || receiver.point == v1::HOOK_POINT_V_INPUT) {
      const int group = heads_ / key_heads_;
      for (int h = receiver.head * group; h < (receiver.head + 1) * group; ++h) {
        part = std::max(part, share(receiver.layer, h));
      }
    }
    reads.push_back(part);
  }
  double edges = 0;
  for (const auto& [sender, receiver] : ends_) {
    edges += reads[receiver] * (sender == 0 ? 1 : shares[sender - 1]);
  }
  return edges;
}

std::vector<std::string> CircuitGraph::ReceiversOf(const Node& node) const {
  if (!node.is_head) return {MlpInput(node.layer)};
  const int key_head = node.index / (heads_ / key_heads_);
  const std::string layer = absl::StrCat("L", node.layer, ".");
  return {absl::StrCat(layer, "q", node.index), absl::StrCat(layer, "k", key_head),
          absl::StrCat(layer, "v", key_head)};
}

}  // namespace mechinterp
