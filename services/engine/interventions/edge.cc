#include "services/engine/interventions/edge.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace mechinterp::engine {
namespace {

// The kinds of receivers, in the order of the pass. A name is "L2." and then the word, and with it,
// where there is a head axis, the head.
struct KindOfReceiver {
  Receiver::Kind kind;
  HookPoint point;
  const char* word;
};
constexpr KindOfReceiver kKindsOfReceivers[] = {{Receiver::Kind::kQuery, HookPoint::kQInput, "q"},
                                                {Receiver::Kind::kKey, HookPoint::kKInput, "k"},
                                                {Receiver::Kind::kValue, HookPoint::kVInput, "v"},
                                                {Receiver::Kind::kMlp, HookPoint::kMlpIn, "mlp_in"},
                                                {Receiver::Kind::kFinal, HookPoint::kResidPost, "final"}};

const KindOfReceiver& RowOf(Receiver::Kind kind) { return kKindsOfReceivers[static_cast<int>(kind)]; }

// Those of one layer.
int64_t ReceiversOfLayer(const ModelConfig& config) {
  return config.head_count + 2 * config.key_value_head_count + 1;
}

// Takes "L7" from the front of a name, up to its dot.
std::optional<int> ConsumeLayer(absl::string_view& name, const ModelConfig& config) {
  int layer = 0;
  if (!absl::ConsumePrefix(&name, "L")) return std::nullopt;
  const size_t dot = std::min(name.find('.'), name.size());
  if (!absl::SimpleAtoi(name.substr(0, dot), &layer) || layer < 0 || layer >= config.layer_count()) {
    return std::nullopt;
  }
  name.remove_prefix(dot);
  return layer;
}

}  // namespace

HookSite SiteOf(const Receiver& receiver, const ModelConfig& config) {
  return {RowOf(receiver.kind).point,
          receiver.kind == Receiver::Kind::kFinal ? config.layer_count() - 1 : receiver.layer};
}

HookSite SiteOf(const Sender& sender) {
  switch (sender.kind) {
    case Sender::Kind::kEmbedding:
      return {HookPoint::kEmbed, 0};
    case Sender::Kind::kHead:
      return {HookPoint::kResult, sender.layer};
    case Sender::Kind::kMlp:
      break;
  }
  return {HookPoint::kMlpOut, sender.layer};
}

std::string NameOf(const Sender& sender) {
  switch (sender.kind) {
    case Sender::Kind::kEmbedding:
      return "embed";
    case Sender::Kind::kHead:
      return absl::StrCat("L", sender.layer, ".H", sender.head);
    case Sender::Kind::kMlp:
      break;
  }
  return absl::StrCat("L", sender.layer, ".mlp");
}

std::string NameOf(const Receiver& receiver) {
  const char* const word = RowOf(receiver.kind).word;
  if (receiver.kind == Receiver::Kind::kFinal) return word;
  const std::string name = absl::StrCat("L", receiver.layer, ".", word);
  return receiver.kind == Receiver::Kind::kMlp ? name : absl::StrCat(name, receiver.head);
}

std::vector<Sender> Senders(const ModelConfig& config) {
  std::vector<Sender> senders = {{}};
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    for (int head = 0; head < config.head_count; ++head) {
      senders.push_back({Sender::Kind::kHead, layer, head});
    }
    senders.push_back({Sender::Kind::kMlp, layer, 0});
  }
  return senders;
}

std::vector<Receiver> Receivers(const ModelConfig& config) {
  std::vector<Receiver> receivers;
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    for (const KindOfReceiver& row : kKindsOfReceivers) {
      if (row.kind == Receiver::Kind::kFinal) continue;
      for (int head = 0; head < ShapeOf(row.point, config).heads; ++head) {
        receivers.push_back({row.kind, layer, head});
      }
    }
  }
  receivers.push_back({});
  return receivers;
}

int64_t ReceiverCount(const ModelConfig& config) {
  return config.layer_count() * ReceiversOfLayer(config) + 1;
}

int64_t IndexOf(const Sender& sender, const ModelConfig& config) {
  const int64_t of_layer = 1 + int64_t{sender.layer} * (config.head_count + 1);
  switch (sender.kind) {
    case Sender::Kind::kEmbedding:
      return 0;
    case Sender::Kind::kHead:
      return of_layer + sender.head;
    case Sender::Kind::kMlp:
      break;
  }
  return of_layer + config.head_count;
}

int64_t IndexOf(const Receiver& receiver, const ModelConfig& config) {
  const int64_t of_layer = receiver.layer * ReceiversOfLayer(config);
  switch (receiver.kind) {
    case Receiver::Kind::kQuery:
      return of_layer + receiver.head;
    case Receiver::Kind::kKey:
      return of_layer + config.head_count + receiver.head;
    case Receiver::Kind::kValue:
      return of_layer + config.head_count + config.key_value_head_count + receiver.head;
    case Receiver::Kind::kMlp:
      return of_layer + ReceiversOfLayer(config) - 1;
    case Receiver::Kind::kFinal:
      break;
  }
  return ReceiverCount(config) - 1;
}

int64_t SenderCount(const Receiver& receiver, const ModelConfig& config) {
  const int64_t of_layer = config.head_count + 1;
  switch (receiver.kind) {
    case Receiver::Kind::kFinal:
      return 1 + config.layer_count() * of_layer;
    case Receiver::Kind::kMlp:
      return 1 + receiver.layer * of_layer + config.head_count;
    default:
      return 1 + receiver.layer * of_layer;
  }
}

std::vector<HookSite> SenderSites(const ModelConfig& config) {
  std::vector<HookSite> sites = {{HookPoint::kEmbed, 0}};
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    sites.push_back({HookPoint::kResult, layer});
    sites.push_back({HookPoint::kMlpOut, layer});
  }
  return sites;
}

std::vector<HookSite> ReceiverSites(const ModelConfig& config) {
  std::vector<HookSite> sites;
  for (const Receiver& receiver : Receivers(config)) {
    const HookSite site = SiteOf(receiver, config);
    if (receiver.head == 0) sites.push_back(site);
  }
  return sites;
}

std::optional<Sender> SenderOfName(absl::string_view name, const ModelConfig& config) {
  if (name == "embed") return Sender{};
  const std::optional<int> layer = ConsumeLayer(name, config);
  if (!layer) return std::nullopt;
  if (name == ".mlp") return Sender{Sender::Kind::kMlp, *layer, 0};
  int head = 0;
  if (!absl::ConsumePrefix(&name, ".H") || !absl::SimpleAtoi(name, &head) || head < 0 ||
      head >= config.head_count) {
    return std::nullopt;
  }
  return Sender{Sender::Kind::kHead, *layer, head};
}

std::optional<Receiver> ReceiverOfName(absl::string_view name, const ModelConfig& config) {
  if (name == "final") return Receiver{};
  const std::optional<int> layer = ConsumeLayer(name, config);
  if (!layer || !absl::ConsumePrefix(&name, ".")) return std::nullopt;
  if (name == RowOf(Receiver::Kind::kMlp).word) return Receiver{Receiver::Kind::kMlp, *layer, 0};
  for (const KindOfReceiver& row : kKindsOfReceivers) {
    absl::string_view digits = name;
    int head = 0;
    if (absl::ConsumePrefix(&digits, row.word) && absl::SimpleAtoi(digits, &head) && head >= 0 &&
        head < ShapeOf(row.point, config).heads) {
      return Receiver{row.kind, *layer, head};
    }
  }
  return std::nullopt;
}

}  // namespace mechinterp::engine
