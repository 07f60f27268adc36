#ifndef DATA_MAKE_TRAINED_EDGE_SPACE_H_
#define DATA_MAKE_TRAINED_EDGE_SPACE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace mechinterp::make_trained {

// What writes into the residual stream (senders) and what reads it (receivers), numbered in the
// order of the forward pass, so that what a receiver can see is a prefix of the senders.

struct Edge {
  int sender = 0;
  int receiver = 0;
  friend bool operator==(const Edge&, const Edge&) = default;
};

// Which edges carry the source's value, [S, R] row by row.
using EdgeMask = std::vector<char>;

class EdgeSpace {
 public:
  EdgeSpace(int layers, int heads, int kv_heads);

  int sender_count() const { return 1 + layers_ * (heads_ + 1); }
  int receiver_count() const { return layers_ * receivers_per_layer() + 1; }
  int receivers_per_layer() const { return heads_ + 2 * kv_heads_ + 1; }
  int layers() const { return layers_; }
  int heads() const { return heads_; }
  int kv_heads() const { return kv_heads_; }
  // Query heads of a key/value head.
  int group_size() const { return heads_ / kv_heads_; }

  static constexpr int kEmbed = 0;
  int Head(int layer, int head) const { return 1 + layer * (heads_ + 1) + head; }
  int Mlp(int layer) const { return Head(layer, heads_); }

  int Query(int layer, int head) const { return layer * receivers_per_layer() + head; }
  int Key(int layer, int kv_head) const { return Query(layer, heads_ + kv_head); }
  int Value(int layer, int kv_head) const { return Key(layer, kv_heads_ + kv_head); }
  int MlpIn(int layer) const { return Value(layer, kv_heads_); }
  int Final() const { return layers_ * receivers_per_layer(); }

  // Senders whose output stands in the stream when this receiver reads it: the first so many.
  int VisibleTo(int receiver) const;
  // Every edge, by receivers.
  const std::vector<Edge>& edges() const { return edges_; }

  // "embed", "L0.H1", "L2.mlp"; "L2.q3", "L2.k1", "L2.v1", "L2.mlp", "final".
  std::string SenderName(int sender) const;
  std::string ReceiverName(int receiver) const;
  std::string EdgeName(Edge edge) const;

  EdgeMask NoEdges() const { return EdgeMask(static_cast<size_t>(sender_count() * receiver_count())); }
  size_t At(Edge edge) const { return static_cast<size_t>(edge.sender * receiver_count() + edge.receiver); }

 private:
  int layers_, heads_, kv_heads_;
  std::vector<Edge> edges_;
};

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_EDGE_SPACE_H_
