#include "clients/lib/readout_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/lib/text_table.h"

namespace mechinterp {

absl::Status ReadoutReader::Add(v1::RunReadoutResponse& message) {
  switch (message.payload_case()) {
    case v1::RunReadoutResponse::kHeader:
      readout_.header = std::move(*message.mutable_header());
      break;
    case v1::RunReadoutResponse::kPrompt:
      return BeginPrompt(*message.mutable_prompt());
    case v1::RunReadoutResponse::kPosition:
      if (readout_.prompts.empty()) return absl::DataLossError("a position of no prompt");
      readout_.prompts.back().positions.push_back({std::move(*message.mutable_position()), {}});
      break;
    case v1::RunReadoutResponse::kPiece:
      return AddPiece(*message.mutable_piece());
    case v1::RunReadoutResponse::kSummary:
      readout_.summary = std::move(*message.mutable_summary());
      ended_ = true;
      break;
    case v1::RunReadoutResponse::PAYLOAD_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

absl::Status ReadoutReader::BeginPrompt(v1::ReadoutPrompt& prompt) {
  if (prompt.prompt_index() != readout_.prompts.size() ||
      prompt.prompt_index() >= readout_.header.prompt_count()) {
    return absl::DataLossError(absl::StrCat("prompt ", prompt.prompt_index(), " came where prompt ",
                                            readout_.prompts.size(), " of ", readout_.header.prompt_count(),
                                            " was due"));
  }
  readout_.prompts.push_back({std::move(prompt), {}, {}});
  return absl::OkStatus();
}

absl::Status ReadoutReader::AddPiece(v1::ReadoutPiece& piece) {
  if (readout_.prompts.empty()) return absl::DataLossError("readings of no prompt");
  ReadoutOfPrompt& prompt = readout_.prompts.back();
  for (v1::LensReading& reading : *piece.mutable_readings()) prompt.readings.push_back(std::move(reading));
  if (piece.contributions().empty()) return absl::OkStatus();
  if (prompt.positions.empty()) return absl::DataLossError("contributions of no position");
  for (v1::DirectContribution& contribution : *piece.mutable_contributions()) {
    prompt.positions.back().contributions.push_back(std::move(contribution));
  }
  return absl::OkStatus();
}

absl::StatusOr<Readout> ReadoutReader::Finish() && {
  if (!ended_) return absl::DataLossError("the readout ended without a summary");
  if (readout_.prompts.size() != readout_.header.prompt_count()) {
    return absl::DataLossError(
        absl::StrCat(readout_.prompts.size(), " of ", readout_.header.prompt_count(), " prompts came"));
  }
  return std::move(readout_);
}

std::string PositionName(const v1::ReadoutPrompt& prompt, uint32_t position) {
  const auto index = static_cast<int>(position);
  const std::string piece = index < prompt.prompt_pieces_size() ? prompt.prompt_pieces(index) : "";
  return absl::StrCat("position ", position,
                      piece.empty() ? "" : absl::StrCat(" (", Visible(piece, 24), ")"));
}

}  // namespace mechinterp
