#include "clients/lib/attribution_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp {

absl::Status AttributionReader::Add(v1::RunAttributionResponse& message) {
  if (message.has_header()) {
    run_.header = std::move(*message.mutable_header());
    return absl::OkStatus();
  }
  if (message.has_pair()) return BeginPair(*message.mutable_pair());
  if (message.has_summary()) {
    ABSTRACT_RETURN_IF_ERROR(EndPair());
    run_.summary = std::move(*message.mutable_summary());
    ended_ = true;
    return absl::OkStatus();
  }
  if (!pair_.has_value()) return absl::DataLossError("scores of no pair");
  if (message.has_chunk()) return tensors_->Add(message.chunk());
  for (v1::AttributionScore& score : *message.mutable_scores()->mutable_scores()) {
    pair_->largest.push_back(std::move(score));
  }
  for (v1::AttributionEdge& edge : *message.mutable_scores()->mutable_edges()) {
    pair_->edges.push_back(std::move(edge));
  }
  return absl::OkStatus();
}

absl::Status AttributionReader::BeginPair(v1::AttributedPair& pair) {
  ABSTRACT_RETURN_IF_ERROR(EndPair());
  if (pair.pair_index() != run_.pairs.size() || pair.pair_index() >= run_.header.pair_count()) {
    return absl::DataLossError(absl::StrCat("pair ", pair.pair_index(), " came where pair ",
                                            run_.pairs.size(), " of ", run_.header.pair_count(), " was due"));
  }
  pair_.emplace();
  pair_->pair = std::move(pair);
  v1::RunHeader header;
  *header.mutable_activations() = pair_->pair.tensors();
  return tensors_.emplace(/*stored=*/false).Begin(header);
}

absl::Status AttributionReader::EndPair() {
  if (!pair_.has_value()) return absl::OkStatus();
  ABSTRACT_RETURN_IF_ERROR(tensors_->End({}));
  ABSTRACT_ASSIGN_OR_RETURN(CachedRun run, std::move(*tensors_).Finish());
  pair_->tensors = std::move(run.activations);
  run_.pairs.push_back(*std::move(pair_));
  pair_.reset();
  return absl::OkStatus();
}

absl::StatusOr<AttributionRun> AttributionReader::Finish() && {
  if (!ended_) return absl::DataLossError("the attribution ended without a summary");
  if (run_.pairs.size() != run_.header.pair_count()) {
    return absl::DataLossError(
        absl::StrCat(run_.pairs.size(), " of ", run_.header.pair_count(), " pairs came"));
  }
  return std::move(run_);
}

}  // namespace mechinterp
