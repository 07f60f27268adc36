#include "services/analysis/circuit.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace mechinterp {
namespace {

struct PartWord {
  PartKind kind;
  std::string_view word;
  bool has_index;
};
constexpr std::array<PartWord, 7> kPartsOfLayers = {{{PartKind::kQuery, "q", true},
                                                     {PartKind::kKey, "k", true},
                                                     {PartKind::kValue, "v", true},
                                                     {PartKind::kHead, "H", true},
                                                     {PartKind::kNeuron, "N", true},
                                                     {PartKind::kMlpInput, "mlp_in", false},
                                                     {PartKind::kMlp, "mlp", false}}};

// Takes a number off the front of `text`.
std::optional<uint32_t> TakeNumber(std::string_view& text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto length = static_cast<size_t>(end - text.data());
  if (error != std::errc() || (length > 1 && text[0] == '0')) return std::nullopt;
  text.remove_prefix(length);
  return number;
}

// Within a layer: what reads before attention, heads, what the MLP reads, the MLP.
int StageOf(PartKind kind) {
  switch (kind) {
    case PartKind::kEmbed:
    case PartKind::kQuery:
    case PartKind::kKey:
    case PartKind::kValue:
      return 0;
    case PartKind::kHead:
      return 1;
    case PartKind::kMlpInput:
      return 2;
    case PartKind::kNeuron:
    case PartKind::kMlp:
    case PartKind::kFinal:
      return 3;
  }
  return 3;
}

double MeanSize(const v1::Estimate& estimate) {
  return std::isfinite(estimate.mean()) ? std::abs(estimate.mean()) : 0;
}

// Indices of the largest, the first of equals first.
template <typename Entries>
std::vector<int> LargestFirst(const Entries& entries) {
  std::vector<int> order(static_cast<size_t>(entries.size()));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return SizeOf(entries[a]) > SizeOf(entries[b]); });
  return order;
}

using PlacedNode = std::pair<CircuitPlace, const v1::MeasuredNode*>;

bool ComesBefore(const PlacedNode& a, const PlacedNode& b) {
  const auto key = [](const CircuitPlace& place) {
    return std::tuple(place.layer, StageOf(place.kind), place.index);
  };
  return key(a.first) < key(b.first);
}

std::vector<PlacedNode> Leaders(const v1::CircuitResults& results, int count) {
  std::vector<PlacedNode> leaders;
  for (const int i : LargestFirst(results.nodes())) {
    if (static_cast<int>(leaders.size()) >= count) break;
    if (const auto place = ParseCircuitName(results.nodes(i).name())) {
      leaders.emplace_back(*place, &results.nodes(i));
    }
  }
  std::stable_sort(leaders.begin(), leaders.end(), ComesBefore);
  return leaders;
}

// Whether the edge's end is drawn where these nodes are.
bool IsDrawn(const CircuitPlace& end, const std::vector<PlacedNode>& nodes,
             const v1::CircuitResults& results) {
  const auto has_head = [&](const auto& is_meant) {
    return std::any_of(nodes.begin(), nodes.end(), [&](const PlacedNode& node) {
      return node.first.kind == PartKind::kHead && node.first.layer == end.layer &&
             is_meant(node.first.index);
    });
  };
  if (end.kind == PartKind::kHead || end.kind == PartKind::kQuery) {
    return has_head([&](uint32_t head) { return head == end.index; });
  }
  if (end.kind != PartKind::kKey && end.kind != PartKind::kValue) return true;
  const uint32_t key_heads = results.key_value_head_count();
  const uint32_t group = key_heads == 0 ? 0 : results.head_count() / key_heads;
  return has_head([&](uint32_t head) { return group == 0 || head / group == end.index; });
}

// Indices of the largest edges between the nodes. The largest of each head comes before all others, so
// that none hangs loose that has one.
std::vector<int> LeadingEdges(const v1::CircuitResults& results, const std::vector<PlacedNode>& nodes,
                              int count) {
  std::vector<int> firsts, others;
  std::set<std::pair<uint32_t, uint32_t>> heads;  // layer and index of those that have one
  for (const int i : LargestFirst(results.edges())) {
    const auto sender = ParseCircuitName(results.edges(i).sender());
    const auto receiver = ParseCircuitName(results.edges(i).receiver());
    if (!sender || !receiver || !IsDrawn(*sender, nodes, results) || !IsDrawn(*receiver, nodes, results)) {
      continue;
    }
    bool is_first = false;
    for (const CircuitPlace& end : {*sender, *receiver}) {
      if (end.kind != PartKind::kHead && end.kind != PartKind::kQuery) continue;
      is_first |= heads.emplace(end.layer, end.index).second;
    }
    (is_first ? firsts : others).push_back(i);
  }
  firsts.insert(firsts.end(), others.begin(), others.end());
  if (static_cast<int>(firsts.size()) > count) firsts.resize(static_cast<size_t>(count));
  std::stable_sort(firsts.begin(), firsts.end(),
                   [&](int a, int b) { return SizeOf(results.edges(a)) > SizeOf(results.edges(b)); });
  return firsts;
}

}  // namespace

std::optional<CircuitPlace> ParseCircuitName(std::string_view name) {
  if (name == "embed") return CircuitPlace{PartKind::kEmbed};
  if (name == "final") return CircuitPlace{PartKind::kFinal};
  if (name.empty() || name[0] != 'L') return std::nullopt;
  name.remove_prefix(1);
  const auto layer = TakeNumber(name);
  if (!layer || name.empty() || name[0] != '.') return std::nullopt;
  name.remove_prefix(1);
  for (const auto& [kind, word, has_index] : kPartsOfLayers) {
    if (!has_index && name == word) return CircuitPlace{kind, *layer, 0};
    if (!has_index || name.substr(0, word.size()) != word) continue;
    std::string_view rest = name.substr(word.size());
    const auto index = TakeNumber(rest);
    if (index && rest.empty()) return CircuitPlace{kind, *layer, *index};
  }
  return std::nullopt;
}

bool IsSender(const CircuitPlace& place) {
  return place.kind == PartKind::kEmbed || place.kind == PartKind::kHead || place.kind == PartKind::kMlp;
}

bool IsReceiver(const CircuitPlace& place) { return !IsSender(place) && place.kind != PartKind::kNeuron; }

bool Reaches(const CircuitPlace& sender, const CircuitPlace& receiver) {
  if (sender.kind == PartKind::kEmbed || receiver.kind == PartKind::kFinal) return true;
  return std::pair(sender.layer, StageOf(sender.kind)) < std::pair(receiver.layer, StageOf(receiver.kind));
}

double SizeOf(const v1::MeasuredNode& node) {
  const double effect =
      std::max({MeanSize(node.noising()), MeanSize(node.denoising()), MeanSize(node.conditional())});
  if (node.role() != v1::CIRCUIT_ROLE_DECOY || !std::isfinite(node.direct_attribution())) return effect;
  return std::max(effect, std::abs(node.direct_attribution()));
}

double SizeOf(const v1::MeasuredEdge& edge) {
  return std::max(MeanSize(edge.noising()), MeanSize(edge.denoising()));
}

v1::GetCircuitResponse CircuitOf(const v1::CircuitResults& results, int node_count, int edge_count) {
  v1::GetCircuitResponse circuit;
  const std::vector<PlacedNode> nodes = Leaders(results, node_count);
  for (const auto& [place, node] : nodes) *circuit.add_nodes() = *node;
  for (const int i : LeadingEdges(results, nodes, edge_count)) *circuit.add_edges() = results.edges(i);
  return circuit;
}

}  // namespace mechinterp
