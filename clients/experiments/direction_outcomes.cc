#include "clients/experiments/direction_outcomes.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/experiments/summaries.h"
#include "services/common/statistics.h"
#include "services/common/status_macros.h"
#include "services/common/text.h"

namespace mechinterp {
namespace {

// Of each condition, how many answers are kept, and how much of each.
constexpr int kExamples = 6;
constexpr size_t kExampleCharacters = 120;

using Answers = std::vector<v1::JudgedResponse>;  // of one condition, in the prompts' order

class ConditionTest {
 public:
  ConditionTest(const ExperimentContext& context, const DirectionOptions& options,
                const DirectionProbe& probe, const std::vector<DirectionCondition>& conditions)
      : context_(context),
        options_(options),
        probe_(probe),
        conditions_(conditions),
        prompts_(BothClasses(options.test_pairs)) {}

  absl::StatusOr<std::vector<v1::DirectionOutcome>> Run() {
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<v1::DirectionPart> scores, Score());
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<Answers> answers, Ask());
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<v1::DirectionPart> answer_entropies,
                              CrossEntropies("answer", AnswerTexts(answers.front())));
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<v1::DirectionPart> text_entropies,
                              CrossEntropies("text", PlainTexts()));
    std::vector<v1::DirectionOutcome> outcomes;
    for (size_t i = 0; i < conditions_.size(); ++i) {
      v1::DirectionOutcome& outcome = outcomes.emplace_back();
      outcome.set_edit(conditions_[i].edit);
      outcome.set_seed(conditions_[i].seed);
      DescribeAnswers(answers[i], outcome);
      DescribeScores(scores, i, outcome);
      Describe(answer_entropies[i], [&] { return outcome.mutable_answer_cross_entropy(); });
      Describe(text_entropies[i], [&] { return outcome.mutable_text_cross_entropy(); });
    }
    return outcomes;
  }

 private:
  // Of each prompt; conditions but the first in order.
  absl::StatusOr<std::vector<v1::DirectionPart>> Score() {
    std::vector<std::string> keys;
    for (const StudyPrompt& prompt : prompts_) keys.push_back(absl::StrCat("test/", prompt.key()));
    std::vector<EditSet> sets;
    for (size_t i = 1; i < conditions_.size(); ++i) sets.push_back(conditions_[i].edits);
    const auto runs = static_cast<int>(sets.size()) + 1;
    return RunParts<v1::DirectionPart>(
        context_, "test scores", keys,
        [&](int i) -> absl::StatusOr<v1::DirectionPart> {
          return probe_.Score(prompts_[static_cast<size_t>(i)].prompt(), sets);
        },
        {[runs](const auto&) { return runs; },
         [&](int, const v1::DirectionPart& part) { return HasValues(part, 2 * sets.size() + 1); }});
  }

  absl::StatusOr<std::vector<Answers>> Ask() {
    std::vector<std::string> keys;
    for (const DirectionCondition& condition : conditions_) {
      for (const StudyPrompt& prompt : prompts_)
        keys.push_back(absl::StrCat("answer/", condition.name, "/", prompt.key()));
    }
    ABSTRACT_ASSIGN_OR_RETURN(
        const Answers all,
        RunParts<v1::JudgedResponse>(
            context_, "answers", keys,
            [&](int i) {
              const auto index = static_cast<size_t>(i);
              return AskOne(conditions_[index / prompts_.size()], prompts_[index % prompts_.size()]);
            },
            {[](const auto&) { return 1; },
             [&](int i, const v1::JudgedResponse& response) {
               const StudyPrompt& prompt = prompts_[static_cast<size_t>(i) % prompts_.size()];
               return IsResponseTo(response, *prompt.pair, prompt.prompt_class);
             }}));
    std::vector<Answers> by_condition(conditions_.size());
    for (size_t i = 0; i < all.size(); ++i) by_condition[i / prompts_.size()].push_back(all[i]);
    return by_condition;
  }

  absl::StatusOr<v1::JudgedResponse> AskOne(const DirectionCondition& condition, const StudyPrompt& prompt) {
    v1::GenerateRequest request;
    *request.mutable_prompt() = prompt.prompt();
    request.mutable_sampling()->set_max_new_tokens(static_cast<uint32_t>(options_.max_new_tokens));
    request.mutable_interventions()->Assign(condition.edits.begin(), condition.edits.end());
    ABSTRACT_ASSIGN_OR_RETURN(const Generation generation, context_.client->Generate(request));
    ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context_.model.identity(), generation.header.model()));
    v1::JudgedResponse response = ResponseTo(*prompt.pair, prompt.prompt_class);
    // Of the model without edits the whole answers are needed, to be scored.
    const size_t kept = condition.edit == v1::DIRECTION_EDIT_NONE ? 0 : kExampleCharacters;
    RecordJudgement(options_.judge, generation.summary.continuation().text(), kept, response);
    return response;
  }

  // The unedited model's answers to harmless prompts that are not empty.
  std::vector<v1::TextToScore> AnswerTexts(const Answers& answers) const {
    std::vector<v1::TextToScore> texts;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      if (prompts_[i].prompt_class != v1::PROMPT_CLASS_HARMLESS || answers[i].response().empty()) continue;
      v1::TextToScore& text = texts.emplace_back();
      *text.mutable_prompt() = prompts_[i].prompt();
      text.set_continuation_text(answers[i].response());
    }
    return texts;
  }

  std::vector<v1::TextToScore> PlainTexts() const {
    std::vector<v1::TextToScore> texts;
    for (const std::string& text : options_.texts) texts.emplace_back().mutable_prompt()->set_text(text);
    return texts;
  }

  absl::StatusOr<std::vector<v1::DirectionPart>> CrossEntropies(std::string_view what,
                                                                const std::vector<v1::TextToScore>& texts) {
    std::vector<std::string> keys;
    for (const DirectionCondition& condition : conditions_)
      keys.push_back(absl::StrCat("cross-entropy/", std::string(what), "/", condition.name));
    if (texts.empty()) return std::vector<v1::DirectionPart>(keys.size());
    const auto runs = static_cast<int>(texts.size());
    return RunParts<v1::DirectionPart>(
        context_, absl::StrCat(std::string(what), " cross-entropy"), keys,
        [&](int i) { return probe_.CrossEntropies(texts, conditions_[static_cast<size_t>(i)].edits); },
        {[runs](const auto&) { return runs; },
         [&](int, const v1::DirectionPart& part) { return HasValues(part, texts.size()); }});
  }

  void DescribeAnswers(const Answers& answers, v1::DirectionOutcome& outcome) const {
    *outcome.mutable_harmful() = RefusalRate(answers, v1::PROMPT_CLASS_HARMFUL);
    *outcome.mutable_harmless() = RefusalRate(answers, v1::PROMPT_CLASS_HARMLESS);
    *outcome.mutable_harmful_at_start() = RefusalRate(answers, v1::PROMPT_CLASS_HARMFUL, true);
    *outcome.mutable_harmless_at_start() = RefusalRate(answers, v1::PROMPT_CLASS_HARMLESS, true);
    for (const v1::JudgedResponse& answer : answers) {
      if (outcome.examples_size() == kExamples) break;
      *outcome.add_examples() = answer;
      outcome.mutable_examples()->rbegin()->set_response(
          std::string(FirstCharacters(answer.response(), kExampleCharacters)));
    }
  }

  void DescribeScores(const std::vector<v1::DirectionPart>& scores, size_t condition,
                      v1::DirectionOutcome& outcome) const {
    std::vector<double> harmful, harmless, kl;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      // Log-odds without edits, and then two values for each condition.
      const int at = condition == 0 ? 0 : static_cast<int>(2 * condition) - 1;
      const bool is_harmful = prompts_[i].prompt_class == v1::PROMPT_CLASS_HARMFUL;
      (is_harmful ? harmful : harmless).push_back(scores[i].values(at));
      if (!is_harmful) kl.push_back(condition == 0 ? 0 : scores[i].values(at + 1));
    }
    *outcome.mutable_harmful_log_odds() = MakeEstimate(harmful, context_.seed);
    *outcome.mutable_harmless_log_odds() = MakeEstimate(harmless, context_.seed);
    *outcome.mutable_harmless_kl() = MakeEstimate(kl, context_.seed);
    std::sort(kl.begin(), kl.end(), std::greater<>());
    if (kl.empty()) return;
    const size_t worst = (kl.size() + 9) / 10;
    outcome.set_worst_decile_kl(Mean(absl::MakeConstSpan(kl).first(worst)));
    outcome.set_worst_kl(kl.front());
  }

  // `estimate`: makes the field, where there is something to be told.
  void Describe(const v1::DirectionPart& part, const std::function<v1::Estimate*()>& estimate) const {
    if (part.values().empty()) return;
    const std::vector<double> values(part.values().begin(), part.values().end());
    *estimate() = MakeEstimate(values, context_.seed);
  }

  const ExperimentContext& context_;
  const DirectionOptions& options_;
  const DirectionProbe& probe_;
  const std::vector<DirectionCondition>& conditions_;
  const std::vector<StudyPrompt> prompts_;
};

}  // namespace

absl::StatusOr<std::vector<v1::DirectionOutcome>> TestConditions(
    const ExperimentContext& context, const DirectionOptions& options, const DirectionProbe& probe,
    const std::vector<DirectionCondition>& conditions) {
  return ConditionTest(context, options, probe, conditions).Run();
}

}  // namespace mechinterp
