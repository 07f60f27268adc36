#ifndef SERVICES_ENGINE_INTERVENTIONS_EDGE_H_
#define SERVICES_ENGINE_INTERVENTIONS_EDGE_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/interventions/hook_point.h"

namespace mechinterp::engine {

// A model as a graph: what writes to the residual stream, and what reads from it.

// What writes to the residual stream: the embedding, a head, an MLP.
struct Sender {
  enum class Kind { kEmbedding, kHead, kMlp };
  Kind kind = Kind::kEmbedding;
  int layer = 0;
  int head = 0;
  friend auto operator<=>(const Sender&, const Sender&) = default;
};

// What reads it: a head's query, key or value, an MLP, or the head that makes logits.
struct Receiver {
  enum class Kind { kQuery, kKey, kValue, kMlp, kFinal };
  Kind kind = Kind::kFinal;
  int layer = 0;
  int head = 0;  // a key/value head's for kKey and kValue
  friend auto operator<=>(const Receiver&, const Receiver&) = default;
};

// "embed", "L0.H1", "L0.mlp"; "L2.q3", "L2.k0", "L2.v0", "L2.mlp_in", "final".
std::string NameOf(const Sender& sender);
std::string NameOf(const Receiver& receiver);

// All of a model, in the order of the pass. An edge goes from a sender to every receiver that
// comes after it.
std::vector<Sender> Senders(const ModelConfig& config);
std::vector<Receiver> Receivers(const ModelConfig& config);
int64_t ReceiverCount(const ModelConfig& config);
// Their places among all of the model's.
int64_t IndexOf(const Sender& sender, const ModelConfig& config);
int64_t IndexOf(const Receiver& receiver, const ModelConfig& config);
// How many of the senders come before a receiver: the first so many.
int64_t SenderCount(const Receiver& receiver, const ModelConfig& config);

// Where one writes, or reads; with its head, where there is a head axis.
HookSite SiteOf(const Sender& sender);
HookSite SiteOf(const Receiver& receiver, const ModelConfig& config);

// Where senders' outputs are captured, and receivers' gradients recorded.
std::vector<HookSite> SenderSites(const ModelConfig& config);
std::vector<HookSite> ReceiverSites(const ModelConfig& config);

// What a name stands for; nothing where it is no name, or none of this model's.
std::optional<Sender> SenderOfName(absl::string_view name, const ModelConfig& config);
std::optional<Receiver> ReceiverOfName(absl::string_view name, const ModelConfig& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_EDGE_H_
