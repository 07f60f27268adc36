#include "clients/experiments/positions.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/lib/prompts.h"
#include "services/common/status_macros.h"

namespace mechinterp {

absl::StatusOr<v1::TokenizeResponse> TokenizeUserPrompt(ModelClient& client, const std::string& message) {
  v1::TokenizeRequest request;
  *request.mutable_prompt() = UserPrompt(message);
  return client.Tokenize(request);
}

absl::StatusOr<std::vector<int32_t>> FindDecisionPositions(ModelClient& client, const std::string& example) {
  ABSTRACT_ASSIGN_OR_RETURN(const v1::TokenizeResponse tokens, TokenizeUserPrompt(client, example));
  const int count = tokens.ids_size();
  const int last_instruction = static_cast<int>(tokens.last_instruction_position());
  if (!tokens.has_last_instruction_position() || last_instruction >= count) {
    return absl::FailedPreconditionError("the service did not tell where the last instruction token is");
  }
  std::vector<int32_t> positions(static_cast<size_t>(count - last_instruction));
  std::iota(positions.begin(), positions.end(), last_instruction - count);
  return positions;
}

std::vector<int32_t> AllPositions(absl::Span<const v1::TokenizeResponse> prompts) {
  int longest = 0;
  for (const v1::TokenizeResponse& prompt : prompts) longest = std::max(longest, prompt.ids_size());
  std::vector<int32_t> positions(static_cast<size_t>(longest));
  std::iota(positions.begin(), positions.end(), -longest);
  return positions;
}

std::string LabelPosition(int32_t position, absl::Span<const v1::TokenizeResponse> prompts) {
  std::set<std::string> pieces;
  for (const v1::TokenizeResponse& prompt : prompts) {
    const int index = prompt.pieces_size() + position;
    if (index < 0 || index >= prompt.pieces_size()) continue;
    const bool is_last_instruction = prompt.has_last_instruction_position() &&
                                     static_cast<int>(prompt.last_instruction_position()) == index;
    pieces.insert(is_last_instruction ? "last instruction token" : prompt.pieces(index));
  }
  return pieces.size() == 1 ? *pieces.begin() : absl::StrCat("position ", position);
}

}  // namespace mechinterp
