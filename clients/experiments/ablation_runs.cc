#include "clients/experiments/ablation_runs.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/experiments/ablation_edits.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// Enough of an answer to tell a refusal, an answer and a broken model apart.
constexpr size_t kKeptCharacters = 120;
// How often lost source runs are made again for one prompt.
constexpr int kMaxSourceRenewals = 3;

bool NeedsSources(const Condition& condition) {
  return condition.method != v1::ABLATION_METHOD_ZERO && !condition.components.empty();
}

}  // namespace

absl::StatusOr<v1::JudgedResponse> AblationRunner::Ask(const Condition& condition, const StudyPrompt& prompt,
                                                       uint64_t prompt_index) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = prompt.prompt();
  request.mutable_sampling()->set_max_new_tokens(static_cast<uint32_t>(max_new_tokens));
  absl::StatusOr<Generation> generation;
  for (int attempt = 0; attempt <= kMaxSourceRenewals; ++attempt) {
    StoredSources::Handles handles;
    if (NeedsSources(condition)) {
      ABSTRACT_ASSIGN_OR_RETURN(handles, sources.Get());
    }
    const auto interventions = AblationInterventions(
        condition.components, {condition.method, positions, handles.handles, context.seed + prompt_index});
    request.mutable_interventions()->Assign(interventions.begin(), interventions.end());
    generation = context.client->Generate(request);
    if (!NeedsSources(condition) || !absl::IsNotFound(generation.status())) break;
    sources.MarkLost(handles.generation);
  }
  ABSTRACT_RETURN_IF_ERROR(generation.status());
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context.model.identity(), generation->header.model()));
  v1::JudgedResponse response = ResponseTo(*prompt.pair, prompt.prompt_class);
  RecordJudgement(judge, generation->summary.continuation().text(), kKeptCharacters, response);
  return response;
}

absl::StatusOr<std::vector<std::vector<v1::JudgedResponse>>> AblationRunner::Run(
    const std::string& stage, const std::vector<Condition>& conditions,
    const std::vector<StudyPrompt>& prompts) {
  std::vector<std::string> keys;
  for (const Condition& condition : conditions) {
    for (const StudyPrompt& prompt : prompts) {
      keys.push_back(absl::StrCat(stage, "/", condition.name, "/", prompt.key()));
    }
  }
  const auto ask = [&](int i) {
    const size_t index = static_cast<size_t>(i);
    return Ask(conditions[index / prompts.size()], prompts[index % prompts.size()], index % prompts.size());
  };
  ABSTRACT_ASSIGN_OR_RETURN(
      std::vector<v1::JudgedResponse> answers,
      RunParts<v1::JudgedResponse>(context, stage, keys, ask,
                                   {[](const auto&) { return 1; },
                                    [&](int i, const v1::JudgedResponse& response) {
                                      const StudyPrompt& prompt = prompts[i % prompts.size()];
                                      return IsResponseTo(response, *prompt.pair, prompt.prompt_class);
                                    }}));
  std::vector<std::vector<v1::JudgedResponse>> by_condition(conditions.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    by_condition[i / prompts.size()].push_back(std::move(answers[i]));
  }
  return by_condition;
}

}  // namespace mechinterp
