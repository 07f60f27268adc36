#include "data/make_planted/circuit_builder.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace mechinterp::make_planted {
namespace {

// Scores by which a head tells what it looks at from the rest: e^-30 is nothing in fp32.
constexpr double kSharpness = 60;
// Neighbouring offsets differ by a quarter of the rotary score, hence more of it.
constexpr double kOffsetSharpness = 80;
// Shares of the two fastest pairs. The first turns by 1 a token and tells neighbours, the
// second tells whole turns of the first.
constexpr double kOffsetShares[] = {0.6, 0.4};

// Thirty features that a variant may need, and as many directions for distractors.
constexpr int kSmallestWidth = 64;

void AddTerms(DenseMatrix& matrix, int row, const Terms& terms, double factor = 1) {
  for (const Term& term : terms) matrix(row, term.feature) += factor * term.coefficient;
}

void WriteTerms(DenseMatrix& matrix, int column, const Terms& terms) {
  for (const Term& term : terms) matrix(term.feature, column) += term.coefficient;
}

std::set<Feature> FeaturesOf(const Terms& terms) {
  std::set<Feature> features;
  for (const Term& term : terms) features.insert(term.feature);
  return features;
}

Terms Negated(Terms terms) {
  for (Term& term : terms) term.coefficient = -term.coefficient;
  return terms;
}

std::string MlpOf(int layer) { return absl::StrCat("L", layer, ".mlp"); }

}  // namespace

std::string PlantedNode::name() const {
  return absl::StrCat("L", layer, kind == NodeKind::kHead ? ".H" : ".N", index);
}

absl::Status CheckSizes(const engine::ModelConfig& shape) {
  const struct {
    const char* name;
    int size, smallest;
  } sizes[] = {{"layers", shape.layer_count(), 4},          {"heads", shape.head_count, 8},
               {"kv-heads", shape.key_value_head_count, 2}, {"head-size", shape.head_size, 16},
               {"d-model", shape.d_model, kSmallestWidth},  {"d-ff", shape.d_ff, 8}};
  for (const auto& [name, size, smallest] : sizes) {
    if (size >= smallest) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is ", size, "; a planted circuit needs ", smallest, " at least"));
  }
  return absl::OkStatus();
}

CircuitBuilder::CircuitBuilder(const engine::ModelConfig& shape, TokenId begin)
    : shape_(shape),
      embedding_(shape.vocabulary_size, shape.d_model),
      unembedding_(shape.vocabulary_size, shape.d_model),
      groups_(static_cast<size_t>(shape.layer_count()) * shape.key_value_head_count) {
  const int width = shape.d_model;
  for (int l = 0; l < shape.layer_count(); ++l) {
    layers_.push_back({.query = {shape.query_width(), width},
                       .key = {shape.key_value_width(), width},
                       .value = {shape.key_value_width(), width},
                       .output = {width, shape.query_width()},
                       .gate = {shape.d_ff, width},
                       .up = {shape.d_ff, width},
                       .down = {width, shape.d_ff}});
  }
  AddFeature(/*tells=*/false);  // kConstant
  for (int token = 0; token < shape.vocabulary_size; ++token) Embed(token, kConstant);
  begin_ = AddFeature(/*tells=*/false);
  Embed(begin, begin_);
  for (int l = 0; l < shape.layer_count(); ++l) {
    for (int g = 0; g < shape.key_value_head_count; ++g) {
      for (int pair = 0; pair < 2; ++pair) layers_[l].key(g * shape.head_size + pair, kConstant) = 1;
      PairOfKey(l, g, {{begin_}});
    }
  }
}

Feature CircuitBuilder::AddFeature(bool tells) {
  tells_.push_back(tells);
  return feature_count() - 1;
}

void CircuitBuilder::Embed(TokenId token, Feature feature, double value) {
  embedding_(static_cast<int>(token), feature) += value;
}

void CircuitBuilder::ReadOut(TokenId token, Feature feature, double coefficient) {
  unembedding_(static_cast<int>(token), feature) += coefficient;
}

bool CircuitBuilder::IsPlanted(NodeKind kind, int layer, int index) const {
  return std::any_of(nodes_.begin(), nodes_.end(), [&](const PlantedNode& node) {
    return node.kind == kind && node.layer == layer && node.index == index;
  });
}

int CircuitBuilder::FreeHead(int layer, Random& random) const {
  std::vector<int> best;
  int fewest = 0;
  for (int head = 0; head < shape_.head_count; ++head) {
    if (IsPlanted(NodeKind::kHead, layer, head)) continue;
    const int others = group(layer, GroupOf(head)).planted;
    if (!best.empty() && others > fewest) continue;
    if (others < fewest) best.clear();
    fewest = others;
    best.push_back(head);
  }
  return random.Choose(best);
}

int CircuitBuilder::FreeNeuron(int layer, Random& random) const {
  while (true) {
    const int neuron = static_cast<int>(random.Index(shape_.d_ff));
    if (!IsPlanted(NodeKind::kNeuron, layer, neuron)) return neuron;
  }
}

int CircuitBuilder::AddHead(int layer, int head, const HeadSpec& spec) {
  const int g = GroupOf(head);
  if (spec.key.empty()) {
    LookBack(layer, head, spec.offset, spec.query, kOffsetSharpness);
    // Not where it works: begin-of-text has its share of the rotary score.
    Terms resting = Negated(spec.query);
    resting.push_back({kConstant, 1});
    Rest(layer, head, resting, kSharpness / 2);
  } else {
    LookFor(layer, head, *PairOfKey(layer, g, spec.key), spec.query, kSharpness);
    Rest(layer, head, {{kConstant}}, kSharpness / 2);
  }
  PlantedNode node{.kind = NodeKind::kHead, .layer = layer, .index = head};
  node.query_reads = FeaturesOf(spec.query);
  node.key_reads = FeaturesOf(spec.key);
  for (const HeadSpec::Move& move : spec.moves) {
    const int dim = group(layer, g).value_dims++;
    AddTerms(layers_[layer].value, g * shape_.head_size + dim, move.reads);
    WriteTerms(layers_[layer].output, head * shape_.head_size + dim, move.writes);
    node.value_reads.merge(FeaturesOf(move.reads));
    node.writes.merge(FeaturesOf(move.writes));
  }
  ++group(layer, g).planted;
  nodes_.push_back(std::move(node));
  return static_cast<int>(nodes_.size()) - 1;
}

int CircuitBuilder::AddNeuron(int layer, int neuron, const NeuronSpec& spec) {
  AddTerms(layers_[layer].gate, neuron, spec.gate);
  AddTerms(layers_[layer].up, neuron, spec.up);
  WriteTerms(layers_[layer].down, neuron, spec.writes);
  PlantedNode node{.kind = NodeKind::kNeuron, .layer = layer, .index = neuron};
  node.mlp_reads = FeaturesOf(spec.gate);
  node.mlp_reads.merge(FeaturesOf(spec.up));
  node.writes = FeaturesOf(spec.writes);
  nodes_.push_back(std::move(node));
  return static_cast<int>(nodes_.size()) - 1;
}

std::vector<int> CircuitBuilder::FreeValueDims(int layer, int group_index) const {
  std::vector<int> dims;
  for (int dim = group(layer, group_index).value_dims; dim < shape_.head_size; ++dim) dims.push_back(dim);
  return dims;
}

std::optional<int> CircuitBuilder::PairOfKey(int layer, int group_index, const Terms& key) {
  std::vector<Terms>& keys = group(layer, group_index).keys;
  const auto found = std::find(keys.begin(), keys.end(), key);
  const int first = pair_count() / 2, pair = first + static_cast<int>(found - keys.begin());
  if (found != keys.end()) return pair;
  if (pair >= pair_count()) return std::nullopt;
  keys.push_back(key);
  AddTerms(layers_[layer].key, group_index * shape_.head_size + pair, key);
  return pair;
}

// A pair of a head's dims: i and i + Dh/2. With the key in the first of them and the query
// too, rotations change the score of a slow pair by less than a thousandth.
void CircuitBuilder::LookFor(int layer, int head, int pair, const Terms& query, double strength) {
  AddTerms(layers_[layer].query, head * shape_.head_size + pair, query,
           strength * std::sqrt(shape_.head_size));
}

// The key is (1, 0) at every position. A query that is turned back by `offset` steps meets
// the key of that position without an angle between them.
void CircuitBuilder::LookBack(int layer, int head, int offset, const Terms& query, double strength) {
  for (int pair = 0; pair < 2; ++pair) {
    const double angle = offset * std::pow(shape_.rope_theta, -static_cast<double>(pair) / pair_count());
    const double length = strength * kOffsetShares[pair] * std::sqrt(shape_.head_size);
    const int row = head * shape_.head_size + pair;
    AddTerms(layers_[layer].query, row, query, length * std::cos(angle));
    AddTerms(layers_[layer].query, row + pair_count(), query, -length * std::sin(angle));
  }
}

void CircuitBuilder::Rest(int layer, int head, const Terms& query, double strength) {
  LookFor(layer, head, *PairOfKey(layer, GroupOf(head), {{begin_}}), query, strength);
}

std::set<Feature> CircuitBuilder::EmbeddedFeatures() const {
  std::set<Feature> features;
  for (int token = 0; token < embedding_.rows; ++token) {
    for (Feature feature = 0; feature < feature_count(); ++feature) {
      if (embedding_(token, feature) != 0) features.insert(feature);
    }
  }
  return features;
}

std::vector<Edge> CircuitBuilder::Edges(const std::vector<TokenId>& one,
                                        const std::vector<TokenId>& other) const {
  struct Sender {
    std::string name, edge_name;
    int place;  // attention of layer l: 2 l, its MLP: 2 l + 1
    std::set<Feature> writes;
  };
  struct Receiver {
    std::string name, edge_name, neuron_name;
    int place;
    std::set<Feature> reads;
  };
  std::vector<Sender> senders = {{"embed", "embed", -1, EmbeddedFeatures()}};
  std::vector<Receiver> receivers;
  for (const PlantedNode& node : nodes_) {
    const std::string name = node.name(), layer = absl::StrCat("L", node.layer);
    if (node.kind == NodeKind::kNeuron) {
      senders.push_back({name, MlpOf(node.layer), 2 * node.layer + 1, node.writes});
      receivers.push_back({name, MlpOf(node.layer), name, 2 * node.layer + 1, node.mlp_reads});
      continue;
    }
    senders.push_back({name, name, 2 * node.layer, node.writes});
    const int g = GroupOf(node.index);
    for (const auto& [input, reads] : {std::pair(absl::StrCat(".q", node.index), node.query_reads),
                                       {absl::StrCat(".k", g), node.key_reads},
                                       {absl::StrCat(".v", g), node.value_reads}}) {
      receivers.push_back({name, layer + input, layer + input, 2 * node.layer, reads});
    }
  }
  Receiver final{"final", "final", "final", 2 * shape_.layer_count(), {}};
  for (Feature feature = 0; feature < feature_count(); ++feature) {
    for (const TokenId a : one) {
      for (const TokenId b : other) {
        if (unembedding_(a, feature) != unembedding_(b, feature)) final.reads.insert(feature);
      }
    }
  }
  receivers.push_back(std::move(final));

  std::vector<Edge> edges;
  for (const Sender& sender : senders) {
    for (const Receiver& receiver : receivers) {
      const bool meets = sender.place < receiver.place &&
                         std::any_of(sender.writes.begin(), sender.writes.end(),
                                     [&](Feature f) { return tells(f) && receiver.reads.contains(f); });
      if (!meets) continue;
      edges.push_back({absl::StrCat(sender.edge_name, "->", receiver.edge_name),
                       absl::StrCat(sender.name, "->", receiver.neuron_name), sender.name, receiver.name});
    }
  }
  return edges;
}

}  // namespace mechinterp::make_planted
