#include "services/model/readout_writer.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/paging.h"
#include "services/common/status_macros.h"
#include "services/model/response_building.h"
#include "services/model/service_call.h"

namespace mechinterp {
namespace {

v1::ReadoutPiece Contribution(const std::string& name, double contribution) {
  v1::ReadoutPiece part;
  part.add_contributions()->set_name(name);
  part.mutable_contributions(0)->set_contribution(contribution);
  return part;
}

v1::ReadoutPiece Contribution(const engine::Sender& sender, double value) {
  v1::ReadoutPiece part = Contribution(engine::NameOf(sender), value);
  v1::DirectContribution& contribution = *part.mutable_contributions(0);
  *contribution.mutable_site() = BuildSite(engine::SiteOf(sender));
  if (sender.kind == engine::Sender::Kind::kHead) contribution.set_node(static_cast<uint32_t>(sender.head));
  return part;
}

v1::ReadoutPiece Contribution(const engine::NeuronContribution& neuron) {
  v1::ReadoutPiece part = Contribution(absl::StrCat("L", neuron.layer, ".N", neuron.neuron), neuron.value);
  v1::DirectContribution& contribution = *part.mutable_contributions(0);
  *contribution.mutable_site() = BuildSite({engine::HookPoint::kMlpPost, neuron.layer});
  contribution.set_node(static_cast<uint32_t>(neuron.neuron));
  return part;
}

}  // namespace

absl::Status ReadoutWriter::WriteHeader(uint32_t prompt_count) {
  v1::RunReadoutResponse message;
  *message.mutable_header()->mutable_model() = served_.Identity();
  message.mutable_header()->set_prompt_count(prompt_count);
  return Write(message);
}

absl::Status ReadoutWriter::WritePrompt(uint32_t index, const engine::TokenizedPrompt& prompt) {
  v1::RunReadoutResponse message;
  v1::ReadoutPrompt& opening = *message.mutable_prompt();
  opening.set_prompt_index(index);
  for (engine::TokenId id : prompt.ids) {
    opening.add_prompt_token_ids(id);
    opening.add_prompt_pieces(TokenText(*served_.model, id));
  }
  return Write(message);
}

absl::Status ReadoutWriter::WriteReading(const engine::LensReading& reading) {
  v1::ReadoutPiece part;
  v1::LensReading& result = *part.add_readings();
  result.set_name(engine::SiteName(reading.site));
  *result.mutable_site() = BuildSite(reading.site);
  result.set_position(static_cast<uint32_t>(reading.position));
  v1::RunMetrics metrics = BuildMetrics(*served_.model, reading.metrics);
  if (metrics.has_logit_difference()) result.set_logit_difference(metrics.logit_difference());
  if (metrics.has_refusal_log_odds()) result.set_refusal_log_odds(metrics.refusal_log_odds());
  result.set_kl_from_final(metrics.kl_from_clean());
  result.mutable_top_tokens()->Swap(metrics.mutable_top_tokens());
  *result.mutable_target() = BuildTokenProbability(*served_.model, reading.target);
  result.set_target_log_probability(reading.target_log_probability);
  result.set_target_rank(static_cast<uint32_t>(reading.target_rank));
  return AddToPiece(part);
}

absl::Status ReadoutWriter::WriteAttribution(const engine::DirectAttribution& attribution) {
  v1::RunReadoutResponse message;
  message.mutable_position()->set_position(static_cast<uint32_t>(attribution.position));
  message.mutable_position()->set_mean_logit_difference(attribution.logit_difference);
  message.mutable_position()->set_contribution_sum(attribution.Sum());
  ABSTRACT_RETURN_IF_ERROR(Write(message));
  const std::vector<engine::Sender> senders = engine::Senders(served_.config());
  for (size_t i = 0; i < senders.size(); ++i) {
    ABSTRACT_RETURN_IF_ERROR(AddToPiece(Contribution(senders[i], attribution.senders[i])));
  }
  if (attribution.biases.has_value()) {
    ABSTRACT_RETURN_IF_ERROR(AddToPiece(Contribution("biases", *attribution.biases)));
  }
  for (const engine::NeuronContribution& neuron : attribution.neurons) {
    ABSTRACT_RETURN_IF_ERROR(AddToPiece(Contribution(neuron)));
  }
  return absl::OkStatus();
}

absl::Status ReadoutWriter::WriteSummary(const v1::RunTimings& timings) {
  v1::RunReadoutResponse message;
  *message.mutable_summary()->mutable_timings() = timings;
  return Write(message);
}

absl::Status ReadoutWriter::AddToPiece(const v1::ReadoutPiece& part) {
  const size_t bytes = part.ByteSizeLong();
  if (kept_bytes_ + bytes > kPieceBytes) ABSTRACT_RETURN_IF_ERROR(Flush());
  kept_.mutable_piece()->MergeFrom(part);
  kept_bytes_ += bytes;
  return absl::OkStatus();
}

absl::Status ReadoutWriter::Write(const v1::RunReadoutResponse& message) {
  ABSTRACT_RETURN_IF_ERROR(Flush());
  return writer_.Write(message);
}

absl::Status ReadoutWriter::Flush() {
  if (kept_bytes_ == 0) return absl::OkStatus();
  kept_bytes_ = 0;
  const v1::RunReadoutResponse message = std::move(kept_);
  kept_.Clear();
  return writer_.Write(message);
}

}  // namespace mechinterp
