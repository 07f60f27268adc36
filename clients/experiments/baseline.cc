#include "clients/experiments/baseline.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/experiments/fingerprints.h"
#include "clients/experiments/summaries.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// Fills in what the model answers to `response`'s prompt, judged.
absl::StatusOr<v1::JudgedResponse> Answer(const ExperimentContext& context, const BaselineOptions& options,
                                          const MetricTokens& tokens, v1::JudgedResponse response) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = UserPrompt(response.prompt());
  request.mutable_sampling()->set_max_new_tokens(static_cast<uint32_t>(options.max_new_tokens));
  *request.mutable_metrics() = MetricOptionsOf(tokens);
  ABSTRACT_ASSIGN_OR_RETURN(const Generation generation, context.client->Generate(request));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context.model.identity(), generation.header.model()));
  const v1::RunMetrics& metrics = generation.summary.metrics();
  if (!metrics.has_logit_difference() || !metrics.has_refusal_log_odds()) {
    return absl::FailedPreconditionError(
        "the server answers Generate without metrics; it is older than this client");
  }

  RecordJudgement(options.judge, generation.summary.continuation().text(), 0, response);
  response.set_logit_difference(metrics.logit_difference());
  response.set_refusal_log_odds(metrics.refusal_log_odds());
  return response;
}

// Categories in the order in which they first occur.
void AddCategoryRates(v1::BaselineResults& results) {
  std::vector<std::string> names;
  std::map<std::string, std::vector<v1::JudgedResponse>> by_category;
  for (const v1::JudgedResponse& response : results.responses()) {
    if (response.prompt_class() == v1::PROMPT_CLASS_BORDERLINE) continue;
    auto& responses = by_category[response.category()];
    if (responses.empty()) names.push_back(response.category());
    responses.push_back(response);
  }
  for (const std::string& name : names) {
    v1::CategoryRates& rates = *results.add_categories();
    rates.set_category(name);
    *rates.mutable_harmful() = RefusalRate(by_category[name], v1::PROMPT_CLASS_HARMFUL);
    *rates.mutable_harmless() = RefusalRate(by_category[name], v1::PROMPT_CLASS_HARMLESS);
  }
}

void AddBorderlineRates(const std::vector<v1::JudgedResponse>& responses, v1::BaselineResults& results) {
  constexpr v1::PromptClass kClass = v1::PROMPT_CLASS_BORDERLINE;
  std::vector<std::string> names;
  std::map<std::string, std::vector<v1::JudgedResponse>> by_category;
  for (const v1::JudgedResponse& response : responses) {
    if (response.prompt_class() != kClass) continue;
    auto& own = by_category[response.category()];
    if (own.empty()) names.push_back(response.category());
    own.push_back(response);
  }
  if (names.empty()) return;
  *results.mutable_borderline() = RefusalRate(responses, kClass);
  *results.mutable_borderline_at_start() = RefusalRate(responses, kClass, true);
  for (const std::string& name : names) {
    v1::BorderlineRate& rate = *results.add_borderline_categories();
    rate.set_category(name);
    *rate.mutable_rate() = RefusalRate(by_category[name], kClass);
  }
}

// Every prompt's response, nothing in it yet but the prompt: the pairs', harmful first, then others.
std::vector<v1::JudgedResponse> Prompts(const BaselineOptions& options) {
  std::vector<v1::JudgedResponse> prompts;
  for (const StudyPrompt& prompt : BothClasses(options.pairs)) {
    prompts.push_back(ResponseTo(*prompt.pair, prompt.prompt_class));
  }
  for (const LonePrompt& prompt : options.borderline) {
    prompts.push_back(ResponseTo({prompt.id, prompt.category, "", ""}, v1::PROMPT_CLASS_BORDERLINE));
    prompts.back().set_prompt(prompt.text);
  }
  return prompts;
}

void ReportRates(const ExperimentContext& context, const v1::BaselineResults& results) {
  if (context.monitor == nullptr) return;
  context.monitor->SetRefusalRate("baseline", v1::PROMPT_CLASS_HARMFUL, results.harmful().rate());
  context.monitor->SetRefusalRate("baseline", v1::PROMPT_CLASS_HARMLESS, results.harmless().rate());
}

}  // namespace

absl::StatusOr<v1::BaselineResults> RunBaseline(const ExperimentContext& context,
                                                const BaselineOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(CheckModelFitsStudy(context.model));
  ABSTRACT_ASSIGN_OR_RETURN(const MetricTokens tokens, FindMetricTokens(*context.client, options.openings));
  const std::vector<v1::JudgedResponse> prompts = Prompts(options);
  std::vector<std::string> keys;
  for (const v1::JudgedResponse& prompt : prompts) {
    keys.push_back(absl::StrCat(prompt.pair_id(), "/", std::string(PromptClassName(prompt.prompt_class()))));
  }
  const auto answer = [&](int i) {
    return Answer(context, options, tokens, prompts[static_cast<size_t>(i)]);
  };
  ABSTRACT_ASSIGN_OR_RETURN(
      const std::vector<v1::JudgedResponse> responses,
      RunParts<v1::JudgedResponse>(context, "baseline", keys, answer,
                                   {[](const auto&) { return 1; },
                                    [&](int i, const v1::JudgedResponse& response) {
                                      const v1::JudgedResponse& prompt = prompts[static_cast<size_t>(i)];
                                      return response.pair_id() == prompt.pair_id() &&
                                             response.category() == prompt.category() &&
                                             response.prompt_class() == prompt.prompt_class() &&
                                             response.prompt() == prompt.prompt();
                                    }}));

  v1::BaselineResults results;
  *results.mutable_provenance() = ProvenanceOf(context, options.pairs.size());
  *results.mutable_harmful() = RefusalRate(responses, v1::PROMPT_CLASS_HARMFUL);
  *results.mutable_harmless() = RefusalRate(responses, v1::PROMPT_CLASS_HARMLESS);
  *results.mutable_harmful_at_start() = RefusalRate(responses, v1::PROMPT_CLASS_HARMFUL, true);
  *results.mutable_harmless_at_start() = RefusalRate(responses, v1::PROMPT_CLASS_HARMLESS, true);
  results.mutable_responses()->Assign(responses.begin(), responses.end());
  AddCategoryRates(results);
  AddBorderlineRates(responses, results);
  ReportRates(context, results);
  return results;
}

Fingerprint BaselineFingerprint(const ExperimentContext& context, const BaselineOptions& options) {
  Fingerprint fingerprint = CommonFingerprint(context, "baseline", options.pairs);
  AddOpenings(options.openings, fingerprint);
  fingerprint["refusal phrases"] = absl::StrJoin(options.judge.phrases(), ", ");
  fingerprint["--max-new-tokens"] = absl::StrCat(options.max_new_tokens);
  std::vector<PromptPair> borderline;
  for (const LonePrompt& prompt : options.borderline) {
    borderline.push_back({prompt.id, prompt.category, prompt.text, ""});
  }
  fingerprint["borderline prompts"] = DigestOf(borderline);
  return fingerprint;
}

}  // namespace mechinterp
