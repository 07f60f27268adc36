#ifndef CLIENTS_EXPERIMENTS_POSITIONS_H_
#define CLIENTS_EXPERIMENTS_POSITIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "clients/lib/model_client.h"

namespace mechinterp {

// Positions of prompts of different lengths, which line up from their ends: -1
// is the last token of each.

// A tokenized chat with one user message of `message`.
absl::StatusOr<v1::TokenizeResponse> TokenizeUserPrompt(ModelClient& client, const std::string& message);

// The decision positions: the last instruction token and the chat template's
// tail after it, rising: -6 ... -1 for Llama 3. Read off a message like those
// of the study. FailedPrecondition when the service does not tell the last
// instruction token.
absl::StatusOr<std::vector<int32_t>> FindDecisionPositions(ModelClient& client, const std::string& example);

// Every position that one of the prompts has, rising.
std::vector<int32_t> AllPositions(absl::Span<const v1::TokenizeResponse> prompts);

// "last instruction token" where that is; the token ("<|eot_id|>") where it is
// the same in all prompts; "position -9" otherwise.
std::string LabelPosition(int32_t position, absl::Span<const v1::TokenizeResponse> prompts);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_POSITIONS_H_
