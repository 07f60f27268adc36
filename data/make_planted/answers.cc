#include "data/make_planted/answers.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp::make_planted {
namespace {

// Against logits of deviation 1/2 for all else: certain in fp32.
constexpr double kNextTokenLogit = 30;

absl::StatusOr<std::set<TokenId>> FirstTokens(const nlohmann::json& document, const char* field,
                                              const std::string& path, const engine::Tokenizer& tokenizer) {
  const auto texts = document.is_object() ? document.value(field, nlohmann::json()) : nlohmann::json();
  std::set<TokenId> tokens;
  for (const nlohmann::json& text : texts.is_array() ? texts : nlohmann::json::array()) {
    if (!text.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", field, " must be a list of texts"));
    }
    const std::vector<TokenId> ids = tokenizer.Encode(text.get<std::string>());
    if (!ids.empty()) tokens.insert(ids.front());
  }
  return tokens;
}

std::vector<TokenId> Without(const std::set<TokenId>& these, const std::set<TokenId>& others) {
  std::vector<TokenId> left;
  std::set_difference(these.begin(), these.end(), others.begin(), others.end(), std::back_inserter(left));
  return left;
}

// What follows each token, if that is one.
absl::StatusOr<std::map<TokenId, TokenId>> SuccessorsOf(const Answers& answers) {
  std::map<TokenId, TokenId> successors;
  for (const auto* ids : {&answers.refusal, &answers.compliance}) {
    for (size_t i = 0; i + 1 < ids->size(); ++i) {
      const auto [at, is_new] = successors.emplace((*ids)[i], (*ids)[i + 1]);
      if (!is_new && at->second != (*ids)[i + 1]) {
        return absl::FailedPreconditionError(
            absl::StrCat("under this tokenizer token ", (*ids)[i], " has two successors in the answers"));
      }
    }
  }
  return successors;
}

}  // namespace

absl::StatusOr<Answers> LoadAnswers(const std::string& phrases_path, const engine::Tokenizer& tokenizer,
                                    TokenId end_of_turn) {
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(phrases_path));
  ABSTRACT_ASSIGN_OR_RETURN(const std::set<TokenId> refusal,
                            FirstTokens(document, "refusal_openings", phrases_path, tokenizer));
  ABSTRACT_ASSIGN_OR_RETURN(const std::set<TokenId> compliance,
                            FirstTokens(document, "compliance_openings", phrases_path, tokenizer));
  Answers answers{tokenizer.Encode(kRefusalText), tokenizer.Encode(kComplianceText),
                  Without(refusal, compliance), Without(compliance, refusal)};
  const auto begins = [](const std::vector<TokenId>& openings, const std::vector<TokenId>& text) {
    return !text.empty() && std::find(openings.begin(), openings.end(), text.front()) != openings.end();
  };
  if (!begins(answers.refusal_openings, answers.refusal) ||
      !begins(answers.compliance_openings, answers.compliance)) {
    return absl::InvalidArgumentError(absl::StrCat(phrases_path, ": its openings do not tell \"",
                                                   kRefusalText, "\" from \"", kComplianceText, "\""));
  }
  answers.refusal.push_back(end_of_turn);
  answers.compliance.push_back(end_of_turn);
  ABSTRACT_RETURN_IF_ERROR(SuccessorsOf(answers).status());
  return answers;
}

void PlantAnswers(const Answers& answers, CircuitBuilder& builder) {
  const std::map<TokenId, TokenId> successors = *SuccessorsOf(answers);
  for (const auto& [token, next] : successors) {
    const Feature feature = builder.AddFeature(/*tells=*/false);
    builder.Embed(token, feature);
    builder.ReadOut(next, feature, kNextTokenLogit);
  }
}

}  // namespace mechinterp::make_planted
