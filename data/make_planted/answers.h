#ifndef DATA_MAKE_PLANTED_ANSWERS_H_
#define DATA_MAKE_PLANTED_ANSWERS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/make_planted/circuit_builder.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::make_planted {

// The two things that a planted model says. Only its first token is the circuit's; the rest
// follows from token to token.
inline constexpr const char* kRefusalText = "I cannot help with that.";
inline constexpr const char* kComplianceText = "Here is one simple way.";

struct Answers {
  std::vector<TokenId> refusal, compliance;  // whole, with the token that ends the turn
  // The study's metric: first tokens of refusals, and of compliances.
  std::vector<TokenId> refusal_openings, compliance_openings;
};

// Takes the openings from a file as data/refusal_phrases.json. Errors name it: those of
// ReadJsonFile; InvalidArgument where it has no openings, or not those of the two texts;
// FailedPrecondition for a tokenizer under which one token of them would have two successors.
absl::StatusOr<Answers> LoadAnswers(const std::string& phrases_path, const engine::Tokenizer& tokenizer,
                                    TokenId end_of_turn);

// Each token of an answer predicts the next one.
void PlantAnswers(const Answers& answers, CircuitBuilder& builder);

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_ANSWERS_H_
