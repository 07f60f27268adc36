#include "services/engine/operations/edge_attribution.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/kernels/parallel.h"

namespace mechinterp::engine {
namespace {

// A layer's receivers: of queries, keys, values, and the MLP.
struct PointOfReceivers {
  Receiver::Kind kind;
  HookPoint point;
};
constexpr PointOfReceivers kPointsOfReceivers[] = {{Receiver::Kind::kQuery, HookPoint::kQInput},
                                                   {Receiver::Kind::kKey, HookPoint::kKInput},
                                                   {Receiver::Kind::kValue, HookPoint::kVInput},
                                                   {Receiver::Kind::kMlp, HookPoint::kMlpIn},
                                                   {Receiver::Kind::kFinal, HookPoint::kResidPost}};

// Row `position` of a head in an activation [T, heads, width].
const float* RowOf(const RecordedActivation& activation, int64_t position, int head) {
  const auto& shape = activation.values.shape;
  return activation.values.values.data() + (position * shape[1] + head) * shape[2];
}

}  // namespace

HookSite SiteOf(const Receiver& receiver, const ModelConfig& config) {
  for (const PointOfReceivers& row : kPointsOfReceivers) {
    if (row.kind == receiver.kind) {
      return {row.point, receiver.kind == Receiver::Kind::kFinal ? config.layer_count() - 1 : receiver.layer};
    }
  }
  return {};
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
  switch (receiver.kind) {
    case Receiver::Kind::kQuery:
      return absl::StrCat("L", receiver.layer, ".q", receiver.head);
    case Receiver::Kind::kKey:
      return absl::StrCat("L", receiver.layer, ".k", receiver.head);
    case Receiver::Kind::kValue:
      return absl::StrCat("L", receiver.layer, ".v", receiver.head);
    case Receiver::Kind::kMlp:
      return absl::StrCat("L", receiver.layer, ".mlp_in");
    case Receiver::Kind::kFinal:
      break;
  }
  return "final";
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
    for (const PointOfReceivers& row : kPointsOfReceivers) {
      if (row.kind == Receiver::Kind::kFinal) continue;
      for (int head = 0; head < ShapeOf(row.point, config).heads; ++head) {
        receivers.push_back({row.kind, layer, head});
      }
    }
  }
  receivers.push_back({});
  return receivers;
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

// Position by position: the senders' changes are the rows of a matrix, which the receivers'
// gradients are multiplied by.
std::vector<std::vector<float>> EdgeScores(const ModelConfig& config, const Activations& clean,
                                           const Activations& source, const Activations& gradients) {
  const std::vector<Sender> senders = Senders(config);
  const std::vector<Receiver> receivers = Receivers(config);
  const int64_t d = config.d_model, length = clean.at({HookPoint::kEmbed, 0}).values.shape[0],
                offset = source.at({HookPoint::kEmbed, 0}).values.shape[0] - length;
  kernels::PackedMatrix changes = kernels::EmptyMatrix(NumberFormat::kFloat32, NumberFormat::kFloat32,
                                                       static_cast<int64_t>(senders.size()), d);
  kernels::Allocate(changes);
  std::vector<std::vector<float>> scores;
  for (const Receiver& receiver : receivers) scores.emplace_back(SenderCount(receiver, config));
  std::vector<float> product(senders.size());
  for (int64_t t = std::max<int64_t>(0, -offset); t < length; ++t) {
    kernels::ParallelFor(0, changes.panels(), 1, [&](int64_t begin, int64_t end) {
      std::vector<float> rows(kernels::kPanelOutputs * d);
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t first = panel * kernels::kPanelOutputs;
        const int64_t count = std::min<int64_t>(kernels::kPanelOutputs, changes.out - first);
        for (int64_t i = 0; i < count; ++i) {
          const Sender& sender = senders[first + i];
          const float* before = RowOf(clean.at(SiteOf(sender)), t, sender.head);
          const float* after = RowOf(source.at(SiteOf(sender)), t + offset, sender.head);
          for (int64_t j = 0; j < d; ++j) rows[i * d + j] = after[j] - before[j];
        }
        kernels::PackPanel(changes, panel, rows.data());
      }
    });
    // Receivers of one point and layer have one count of senders and lie together.
    for (size_t r = 0; r < receivers.size();) {
      const HookSite site = SiteOf(receivers[r], config);
      const auto count = static_cast<int64_t>(scores[r].size());
      const int64_t heads = ShapeOf(site.point, config).heads;
      product.resize(heads * count);
      const kernels::Product all{&changes, product.data(), {0, count}};
      kernels::MultiplyEach(RowOf(gradients.at(site), t, 0), heads, std::span(&all, 1));
      for (int64_t head = 0; head < heads; ++head, ++r) {
        for (int64_t s = 0; s < count; ++s) scores[r][s] += product[head * count + s];
      }
    }
  }
  return scores;
}

int64_t EdgeScoresBytes(const ModelConfig& config) {
  const auto senders = static_cast<int64_t>(Senders(config).size());
  int64_t edges = 0;
  for (const Receiver& receiver : Receivers(config)) edges += SenderCount(receiver, config);
  const int64_t rows = kernels::ThreadCount() * kernels::kPanelOutputs * int64_t{config.d_model};
  return kernels::PackedBytes(NumberFormat::kFloat32, senders, config.d_model) +
         (edges + rows + senders * config.head_count) * static_cast<int64_t>(sizeof(float));
}

}  // namespace mechinterp::engine
