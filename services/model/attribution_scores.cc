#include "services/model/attribution_scores.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/paging.h"
#include "services/common/status_macros.h"
#include "services/model/activation_chunks.h"
#include "services/model/response_building.h"
#include "services/model/service_call.h"

namespace mechinterp {
namespace {

// Those rows of [T, ...], or their sum where that is asked for.
engine::HostTensor Select(const engine::HostTensor& tensor, const std::vector<int>& positions, bool sum) {
  const int64_t width = tensor.size() / std::max<int64_t>(1, tensor.shape[0]);
  engine::HostTensor selected;
  if (sum) {
    selected.shape = {width};
    std::vector<double> sums(width);
    for (const int position : positions) {
      for (int64_t i = 0; i < width; ++i) sums[i] += tensor.values[position * width + i];
    }
    selected.values.assign(sums.begin(), sums.end());
    return selected;
  }
  selected.shape = tensor.shape;
  selected.shape[0] = static_cast<int64_t>(positions.size());
  for (const int position : positions) {
    const auto row = tensor.values.begin() + position * width;
    selected.values.insert(selected.values.end(), row, row + width);
  }
  return selected;
}

v1::AttributionEdge BuildEdge(const engine::ModelConfig& config, const engine::Sender& sender,
                              const engine::Receiver& receiver, float score) {
  v1::AttributionEdge edge;
  edge.set_name(absl::StrCat(engine::NameOf(sender), "->", engine::NameOf(receiver)));
  *edge.mutable_sender() = BuildSite(engine::SiteOf(sender));
  if (sender.kind == engine::Sender::Kind::kHead) edge.set_sender_head(static_cast<uint32_t>(sender.head));
  const engine::HookSite site = engine::SiteOf(receiver, config);
  *edge.mutable_receiver() = BuildSite(site);
  if (engine::ShapeOf(site.point, config).has_head_axis) {
    edge.set_receiver_head(static_cast<uint32_t>(receiver.head));
  }
  edge.set_score(score);
  return edge;
}

// A score's place; of those that a request may have returned.
using Place = AttributionPlace;

// The `most` largest of what is offered, by absolute value; of equal ones the first offered.
class Largest {
 public:
  explicit Largest(size_t most) : most_(most) {}

  void Offer(const Place& place) {
    if (kept_.size() == most_) {
      if (!Before(place, kept_.front())) return;
      std::pop_heap(kept_.begin(), kept_.end(), Before);
      kept_.pop_back();
    }
    kept_.push_back(place);
    std::push_heap(kept_.begin(), kept_.end(), Before);
  }
  // The largest first.
  std::vector<Place> Take() && {
    std::sort_heap(kept_.begin(), kept_.end(), Before);
    return std::move(kept_);
  }

 private:
  static bool Before(const Place& a, const Place& b) {
    const float x = std::abs(a.score), y = std::abs(b.score);
    return x != y ? x > y : std::pair(a.part, a.element) < std::pair(b.part, b.element);
  }

  const size_t most_;
  std::vector<Place> kept_;  // a heap, the smallest in front
};

}  // namespace

absl::Status AttributionWriter::WriteHeader() {
  v1::RunAttributionResponse message;
  *message.mutable_header()->mutable_model() = served_.Identity();
  message.mutable_header()->set_pair_count(static_cast<uint32_t>(request_.pairs_size()));
  return writer_.Write(message);
}

std::vector<AttributionWriter::Part> AttributionWriter::PartsOf(const engine::AttributionRequest& pair,
                                                                const std::vector<int>& positions,
                                                                engine::Attribution& attribution) const {
  std::vector<Part> parts;
  for (const engine::HookSite& site : pair.sites) {
    if (!request_.return_gradients()) {
      parts.push_back({site, Select(attribution.scores.at(site), positions, request_.sum_positions())});
      continue;
    }
    engine::HostTensor gradient = std::move(attribution.gradients.at(site).values);
    gradient.shape = engine::PublicShape(site.point, served_.config(), gradient.shape[0], gradient.shape[2]);
    parts.push_back({site, Select(gradient, positions, false)});
  }
  return parts;
}

absl::Status AttributionWriter::WritePair(uint32_t index, const engine::AttributionRequest& pair,
                                          const std::vector<int>& positions,
                                          engine::Attribution attribution) {
  v1::RunAttributionResponse message;
  v1::AttributedPair& opening = *message.mutable_pair();
  opening.set_pair_index(index);
  opening.set_metric(attribution.clean_metric);
  opening.set_source_metric(attribution.source_metric);
  for (engine::TokenId id : pair.clean.ids) {
    opening.add_prompt_token_ids(id);
    opening.add_prompt_pieces(TokenText(*served_.model, id));
  }
  for (engine::TokenId id : pair.source.ids) opening.add_source_token_ids(id);
  if (request_.edges()) {
    ABSTRACT_RETURN_IF_ERROR(writer_.Write(message));
    return WriteLargestEdges(attribution.edges);
  }
  const std::vector<Part> parts = PartsOf(pair, positions, attribution);
  if (request_.top_count() == 0) {
    for (const Part& part : parts) {
      *opening.add_tensors() = BuildActivationInfo(part.site, part.tensor.shape);
    }
  }
  ABSTRACT_RETURN_IF_ERROR(writer_.Write(message));
  return request_.top_count() == 0 ? WriteTensors(parts) : WriteLargest(parts, positions);
}

absl::Status AttributionWriter::WriteTensors(const std::vector<Part>& parts) {
  absl::Status status;
  for (uint32_t i = 0; i < parts.size() && status.ok(); ++i) {
    ForEachChunkOf(i, parts[i].tensor.values, v1::RunAttributionResponse::kChunkFieldNumber,
                   [&](grpc::ByteBuffer message) {
                     status = writer_.WriteSerialized(std::move(message));
                     return status.ok();
                   });
  }
  return status;
}

absl::Status AttributionWriter::WriteInPieces(
    const std::vector<Place>& places,
    absl::FunctionRef<void(const Place& place, v1::AttributionScores& scores)> add) {
  v1::RunAttributionResponse message;
  size_t bytes = 0;
  for (const Place& place : places) {
    v1::AttributionScores one;
    add(place, one);
    if (bytes + one.ByteSizeLong() > kPieceBytes) {
      ABSTRACT_RETURN_IF_ERROR(writer_.Write(message));
      message.Clear();
      bytes = 0;
    }
    bytes += one.ByteSizeLong();
    message.mutable_scores()->MergeFrom(one);
  }
  return bytes == 0 ? absl::OkStatus() : writer_.Write(message);
}

absl::Status AttributionWriter::WriteLargest(const std::vector<Part>& parts,
                                             const std::vector<int>& positions) {
  Largest largest(request_.top_count());
  for (uint32_t part = 0; part < parts.size(); ++part) {
    const std::vector<float>& values = parts[part].tensor.values;
    for (uint32_t i = 0; i < values.size(); ++i) largest.Offer({part, i, values[i]});
  }
  return WriteInPieces(std::move(largest).Take(), [&](const Place& place, v1::AttributionScores& scores) {
    const engine::HookSite& site = parts[place.part].site;
    const auto units = static_cast<uint32_t>(engine::UnitsOf(site.point, served_.config()));
    v1::AttributionScore& score = *scores.add_scores();
    *score.mutable_site() = BuildSite(site);
    if (!request_.sum_positions()) {
      score.set_position(static_cast<uint32_t>(positions[place.element / units]));
    }
    if (units > 1) score.set_node(place.element % units);
    score.set_score(place.score);
  });
}

absl::Status AttributionWriter::WriteLargestEdges(const std::vector<std::vector<float>>& scores) {
  Largest largest(request_.top_count());
  for (uint32_t receiver = 0; receiver < scores.size(); ++receiver) {
    for (uint32_t sender = 0; sender < scores[receiver].size(); ++sender) {
      largest.Offer({receiver, sender, scores[receiver][sender]});
    }
  }
  const std::vector<engine::Sender> senders = engine::Senders(served_.config());
  const std::vector<engine::Receiver> receivers = engine::Receivers(served_.config());
  return WriteInPieces(std::move(largest).Take(), [&](const Place& place, v1::AttributionScores& scores) {
    *scores.add_edges() =
        BuildEdge(served_.config(), senders[place.element], receivers[place.part], place.score);
  });
}

absl::Status AttributionWriter::WriteSummary(const v1::RunTimings& timings) {
  v1::RunAttributionResponse message;
  *message.mutable_summary()->mutable_timings() = timings;
  return writer_.Write(message);
}

}  // namespace mechinterp
