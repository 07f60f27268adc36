#ifndef DATA_MAKE_PLANTED_CIRCUIT_BUILDER_H_
#define DATA_MAKE_PLANTED_CIRCUIT_BUILDER_H_

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "data/make_planted/dense_matrix.h"
#include "services/engine/base/token_id.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::make_planted {

using engine::TokenId;

// A direction of the residual stream. While a model is put together, features are the axes:
// weights are written in terms of them, and turned into a random basis at the end
// (rotated_weights.h). Norms divide by a constant: feature 0 is so large at every position
// that it alone decides their scale.
using Feature = int;
inline constexpr Feature kConstant = 0;

// A linear function of the residual stream: what is read of it, or, the other way around,
// what a component adds to it. The constant reads as 1.
struct Term {
  Feature feature = kConstant;
  double coefficient = 1;
  friend bool operator==(const Term&, const Term&) = default;
};
using Terms = std::vector<Term>;

// What an attention head looks for, and what it carries from there.
struct HeadSpec {
  // Where it works: the reading is 1 at these positions, and at most 0 at others, where the
  // head looks at begin-of-text and carries nothing.
  Terms query = {};
  // What it looks at: the position where this reading is largest, if that is above 1/2 ...
  Terms key = {};
  // ... or, without a key, the position so many tokens before.
  int offset = 0;
  struct Move {
    Terms reads;
    Terms writes;  // so many times what was read
  };
  std::vector<Move> moves = {};
};

// silu(gate) up, written.
struct NeuronSpec {
  Terms gate;
  Terms up;
  Terms writes;
};

enum class NodeKind { kHead, kNeuron };

// What was planted, and the features through which it hangs together with the rest.
struct PlantedNode {
  NodeKind kind = NodeKind::kHead;
  int layer = 0;
  int index = 0;                                                         // of the head, of the neuron
  std::set<Feature> query_reads = {}, key_reads = {}, value_reads = {};  // of a head
  std::set<Feature> mlp_reads = {};                                      // of a neuron
  std::set<Feature> writes = {};

  std::string name() const;  // "L0.H3", "L1.N17"
};

// A connection of planted components in the notation of edge scores, "L0.H1->L2.q3": senders
// embed, Ll.Hh, Ll.mlp; receivers Ll.qh, Ll.kg, Ll.vg (g: key/value head), Ll.mlp, final. With
// neurons by their names beside it.
struct Edge {
  std::string name;
  std::string by_neuron;
  std::string sender, receiver;  // nodes' names, "embed", "final"
};

// The weights of a block in features: readings have a column for each, writings a row.
struct LayerWeights {
  DenseMatrix query, key, value, output, gate, up, down;
};

// Plants heads and neurons in a model of a given shape. What nobody planted is zero, and free
// for others (distractors.h). Not thread-safe.
class CircuitBuilder {
 public:
  // The shape is CheckSizes'. `begin`: the first token of every prompt, where heads rest.
  CircuitBuilder(const engine::ModelConfig& shape, TokenId begin);

  // A new feature. `tells`: its value differs between the prompts of a pair, as what the
  // circuit is about does; edges are made of these.
  Feature AddFeature(bool tells);
  // The embedding of a token has the feature; the logit of a token reads it.
  void Embed(TokenId token, Feature feature, double value = 1);
  void ReadOut(TokenId token, Feature feature, double coefficient);

  // A head of the layer that is not planted, of a key/value head with as few others as possible.
  int FreeHead(int layer, Random& random) const;
  int FreeNeuron(int layer, Random& random) const;
  // Plant a component, which must be free. The number of the node in nodes().
  int AddHead(int layer, int head, const HeadSpec& spec);
  int AddNeuron(int layer, int neuron, const NeuronSpec& spec);

  const engine::ModelConfig& shape() const { return shape_; }
  int feature_count() const { return static_cast<int>(tells_.size()); }
  bool tells(Feature feature) const { return tells_[feature]; }
  const std::vector<PlantedNode>& nodes() const { return nodes_; }
  bool IsPlanted(NodeKind kind, int layer, int index) const;
  // Connections by features that tell, between nodes of which the later reads what the earlier
  // (or the embedding) writes. What logits read counts where it tells `one` set of tokens from
  // the `other`.
  std::vector<Edge> Edges(const std::vector<TokenId>& one, const std::vector<TokenId>& other) const;

  LayerWeights& layer(int index) { return layers_[index]; }
  DenseMatrix& embedding() { return embedding_; }
  DenseMatrix& unembedding() { return unembedding_; }
  const LayerWeights& layer(int index) const { return layers_[index]; }
  const DenseMatrix& embedding() const { return embedding_; }
  const DenseMatrix& unembedding() const { return unembedding_; }

  // For whoever fills what is free. The first half of a head's rotary pairs turns fast enough
  // to tell offsets; of the others, too slow for that, each planted key has one.
  int GroupOf(int head) const { return head * shape_.key_value_head_count / shape_.head_count; }
  // Dims of a key/value head's value that nobody planted.
  std::vector<int> FreeValueDims(int layer, int group) const;
  // The pair in which a key/value head has this key, made if it has none; none if all are used.
  std::optional<int> PairOfKey(int layer, int group, const Terms& key);
  // Adds to rows of a head's query, so that with a key of 1 its score is this reading times
  // `strength`: against the key in `pair`; against the position `offset` before.
  void LookFor(int layer, int head, int pair, const Terms& query, double strength);
  void LookBack(int layer, int head, int offset, const Terms& query, double strength);
  // Against begin-of-text.
  void Rest(int layer, int head, const Terms& query, double strength);

 private:
  struct Group {
    std::vector<Terms> keys;  // of the slow pairs, in order
    int value_dims = 0;       // used so far
    int planted = 0;
  };
  int pair_count() const { return shape_.head_size / 2; }
  Group& group(int layer, int index) { return groups_[layer * shape_.key_value_head_count + index]; }
  const Group& group(int layer, int index) const {
    return groups_[layer * shape_.key_value_head_count + index];
  }
  std::set<Feature> EmbeddedFeatures() const;

  const engine::ModelConfig shape_;
  std::vector<bool> tells_;
  std::vector<LayerWeights> layers_;
  DenseMatrix embedding_, unembedding_;  // [V, D]
  std::vector<Group> groups_;
  std::vector<PlantedNode> nodes_;
  Feature begin_;
};

// Whether circuits of every variant fit: InvalidArgument naming the size that is too small.
// (Those that contradict each other ParseModelConfig refuses.)
absl::Status CheckSizes(const engine::ModelConfig& shape);

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_CIRCUIT_BUILDER_H_
