#include "data/make_trained/edge_space.h"

#include "absl/strings/str_cat.h"

namespace mechinterp::make_trained {

EdgeSpace::EdgeSpace(int layers, int heads, int kv_heads)
    : layers_(layers), heads_(heads), kv_heads_(kv_heads) {
  for (int receiver = 0; receiver < receiver_count(); ++receiver) {
    for (int sender = 0; sender < VisibleTo(receiver); ++sender) edges_.push_back({sender, receiver});
  }
}

int EdgeSpace::VisibleTo(int receiver) const {
  const int layer = receiver / receivers_per_layer();
  if (layer == layers_) return sender_count();
  return receiver == MlpIn(layer) ? Mlp(layer) : Head(layer, 0);
}

std::string EdgeSpace::SenderName(int sender) const {
  if (sender == kEmbed) return "embed";
  const int layer = (sender - 1) / (heads_ + 1), head = (sender - 1) % (heads_ + 1);
  return head == heads_ ? absl::StrCat("L", layer, ".mlp") : absl::StrCat("L", layer, ".H", head);
}

std::string EdgeSpace::ReceiverName(int receiver) const {
  if (receiver == Final()) return "final";
  const int layer = receiver / receivers_per_layer();
  const std::string block = absl::StrCat("L", layer, ".");
  if (receiver == MlpIn(layer)) return block + "mlp";
  if (receiver >= Value(layer, 0)) return absl::StrCat(block, "v", receiver - Value(layer, 0));
  if (receiver >= Key(layer, 0)) return absl::StrCat(block, "k", receiver - Key(layer, 0));
  return absl::StrCat(block, "q", receiver - Query(layer, 0));
}

std::string EdgeSpace::EdgeName(Edge edge) const {
  return absl::StrCat(SenderName(edge.sender), "->", ReceiverName(edge.receiver));
}

}  // namespace mechinterp::make_trained
