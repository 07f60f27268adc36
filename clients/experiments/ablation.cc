#include "clients/experiments/ablation.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/experiments/ablation_criterion.h"
#include "clients/experiments/ablation_edits.h"
#include "clients/experiments/ablation_plan.h"
#include "clients/experiments/ablation_runs.h"
#include "clients/experiments/fingerprints.h"
#include "clients/experiments/positions.h"
#include "clients/experiments/summaries.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

using Answers = std::vector<v1::JudgedResponse>;

constexpr int kHarmfulSamples = 3;
constexpr int kHarmlessSamples = 2;

// Ablation sizes in rising order, 0 first, none past the ranking's end.
std::vector<int> SizesOf(const AblationOptions& options) {
  std::vector<int> sizes = {0};
  for (const int count : options.top_counts) {
    if (count > 0 && static_cast<size_t>(count) <= options.ranking.size()) sizes.push_back(count);
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

absl::Status Check(const ExperimentContext& context, const AblationOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(CheckModelFitsStudy(context.model));
  if (options.pairs.empty()) return absl::InvalidArgumentError("there are no prompts");
  if (options.ranking.empty()) {
    return absl::InvalidArgumentError(
        "the patching results rank no component; run `abstract patching` first");
  }
  if (absl::Status status = CheckRanking(options.ranking, context.model); !status.ok()) {
    return WithContext(status, "the patching results");
  }
  if (options.methods.empty()) return absl::InvalidArgumentError("no ablation method was given");
  const bool resample =
      std::count(options.methods.begin(), options.methods.end(), v1::ABLATION_METHOD_RESAMPLE) > 0;
  if (resample && options.all_positions) {
    return absl::InvalidArgumentError(
        "resampling takes another prompt's values at the same distance from the end, which shorter prompts "
        "do "
        "not have; give --ablate-at decision");
  }
  const std::vector<int> sizes = SizesOf(options);
  if (options.criterion_count.has_value() &&
      (*options.criterion_count < 1 || !std::count(sizes.begin(), sizes.end(), *options.criterion_count))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the criterion is to be judged at ", *options.criterion_count, " components, and --top-k with ",
        options.ranking.size(), " ranked ones has ", absl::StrJoin(sizes, ", ")));
  }
  return absl::OkStatus();
}

Condition Unablated() { return {"unablated", v1::ABLATION_METHOD_MEAN, {}}; }

Condition Top(const AblationOptions& options, v1::AblationMethod method, int count) {
  return {absl::StrCat(std::string(MethodName(method)), " top ", count), method,
          TopComponents(options.ranking, count)};
}

// The random sets of one size; none where the ranking is too short for them.
std::vector<Condition> RandomSets(const AblationOptions& options, v1::AblationMethod method, int count,
                                  uint64_t seed) {
  std::vector<Condition> conditions;
  for (int draw = 0; draw < options.random_draws; ++draw) {
    const auto components = RandomComponents(options.ranking, count, draw, seed);
    if (!components.has_value()) continue;
    conditions.push_back({absl::StrCat(std::string(MethodName(method)), " random ", count, " draw ", draw),
                          method, *components});
  }
  return conditions;
}

void AddSamples(const Answers& answers, v1::AblationPoint& point) {
  int harmful = 0;
  int harmless = 0;
  for (const v1::JudgedResponse& answer : answers) {
    const bool is_harmful = answer.prompt_class() == v1::PROMPT_CLASS_HARMFUL;
    if (is_harmful ? ++harmful <= kHarmfulSamples : ++harmless <= kHarmlessSamples) {
      *point.add_samples() = answer;
    }
  }
}

v1::AblationPoint PointOf(const Condition& condition, const Answers& answers,
                          const v1::GetModelResponse& model) {
  v1::AblationPoint point;
  point.set_component_count(static_cast<uint32_t>(condition.components.size()));
  point.mutable_components()->Assign(condition.components.begin(), condition.components.end());
  *point.mutable_harmful() = RefusalRate(answers, v1::PROMPT_CLASS_HARMFUL);
  *point.mutable_harmless() = RefusalRate(answers, v1::PROMPT_CLASS_HARMLESS);
  point.set_parameter_share(ParameterShare(condition.components, model));
  AddSamples(answers, point);
  return point;
}

v1::RandomControlPoint ControlOf(int count, absl::Span<const Answers> draws) {
  v1::RandomControlPoint point;
  point.set_component_count(static_cast<uint32_t>(count));
  point.set_draw_count(static_cast<uint32_t>(draws.size()));
  Answers pooled;
  for (const Answers& answers : draws) {
    point.add_draw_rates(RefusalRate(answers, v1::PROMPT_CLASS_HARMFUL).rate());
    pooled.insert(pooled.end(), answers.begin(), answers.end());
  }
  *point.mutable_harmful() = RefusalRate(pooled, v1::PROMPT_CLASS_HARMFUL);
  *point.mutable_harmless() = RefusalRate(pooled, v1::PROMPT_CLASS_HARMLESS);
  return point;
}

void Report(const ExperimentContext& context, const Condition& condition, const v1::AblationPoint& point) {
  if (context.monitor == nullptr) return;
  context.monitor->SetRefusalRate(condition.name, v1::PROMPT_CLASS_HARMFUL, point.harmful().rate());
  context.monitor->SetRefusalRate(condition.name, v1::PROMPT_CLASS_HARMLESS, point.harmless().rate());
}

// One method's sizes, with where their conditions lie in the list of all.
struct CurvePlan {
  struct Size {
    int count;
    size_t top;           // Index of the condition.
    size_t random_begin;  // Half-open range of conditions.
    size_t random_end;
  };
  v1::AblationMethod method;
  std::vector<Size> sizes;
};

// Every condition once; the unablated one is shared by the curves.
std::vector<CurvePlan> PlanCurves(const AblationOptions& options, uint64_t seed,
                                  std::vector<Condition>& conditions) {
  conditions = {Unablated()};
  std::vector<CurvePlan> plans;
  for (const v1::AblationMethod method : options.methods) {
    CurvePlan plan{method, {}};
    for (const int count : SizesOf(options)) {
      if (count == 0) {
        plan.sizes.push_back({0, 0, 0, 0});
        continue;
      }
      const size_t top = conditions.size();
      conditions.push_back(Top(options, method, count));
      for (Condition& random : RandomSets(options, method, count, seed))
        conditions.push_back(std::move(random));
      plan.sizes.push_back({count, top, top + 1, conditions.size()});
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

absl::Status AddCurves(const ExperimentContext& context, const AblationOptions& options,
                       AblationRunner& runner, v1::AblationResults& results) {
  std::vector<Condition> conditions;
  const std::vector<CurvePlan> plans = PlanCurves(options, context.seed, conditions);
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<Answers> answers,
                            runner.Run("ablation", conditions, BothClasses(options.pairs)));
  for (const CurvePlan& plan : plans) {
    v1::AblationCurve& curve = *results.add_curves();
    curve.set_method(plan.method);
    for (const CurvePlan::Size& size : plan.sizes) {
      *curve.add_top() = PointOf(conditions[size.top], answers[size.top], context.model);
      Report(context, conditions[size.top], *curve.top().rbegin());
      if (size.random_begin == size.random_end) continue;
      *curve.add_random() = ControlOf(
          size.count,
          absl::MakeConstSpan(answers).subspan(size.random_begin, size.random_end - size.random_begin));
    }
  }
  return absl::OkStatus();
}

absl::Status AddHeldOut(const ExperimentContext& context, const AblationOptions& options,
                        AblationRunner& runner, v1::AblationResults& results) {
  const int count = static_cast<int>(results.criterion().component_count());
  const v1::AblationMethod method = options.methods[0];
  const std::vector<Condition> compared = {Unablated(), Top(options, method, count)};
  const std::vector<Condition> random = RandomSets(options, method, count, context.seed);
  const std::vector<StudyPrompt> prompts = BothClasses(options.held_out_pairs);
  std::vector<StudyPrompt> harmful;
  std::copy_if(prompts.begin(), prompts.end(), std::back_inserter(harmful),
               [](const StudyPrompt& prompt) { return prompt.prompt_class == v1::PROMPT_CLASS_HARMFUL; });
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<Answers> answers, runner.Run("held-out", compared, prompts));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<Answers> controls,
                            runner.Run("held-out control", random, harmful));

  *results.mutable_held_out_baseline() = PointOf(compared[0], answers[0], context.model);
  *results.mutable_held_out_top() = PointOf(compared[1], answers[1], context.model);
  std::optional<double> random_rate;
  if (!controls.empty()) random_rate = ControlOf(count, controls).harmful().rate();
  *results.mutable_held_out_criterion() =
      JudgeCriterion(options.threshold_points, count, results.held_out_baseline().harmful().rate(),
                     results.held_out_top().harmful().rate(), random_rate);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::AblationResults> RunAblation(const ExperimentContext& context,
                                                const AblationOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(Check(context, options));
  std::vector<int32_t> positions;
  if (!options.all_positions) {
    ABSTRACT_ASSIGN_OR_RETURN(positions, FindDecisionPositions(*context.client, options.pairs[0].harmful));
  }
  std::vector<v1::Prompt> harmless;
  for (const PromptPair& pair : options.pairs) harmless.push_back(UserPrompt(pair.harmless));
  StoredSources sources(context.client, std::move(harmless),
                        {"blocks.*.attn.hook_z", "blocks.*.mlp.hook_post"}, context.concurrency,
                        context.monitor);
  AblationRunner runner{context, options.judge, sources, positions, options.max_new_tokens};

  v1::AblationResults results;
  *results.mutable_provenance() = ProvenanceOf(context, options.pairs.size());
  results.mutable_positions()->Add(positions.begin(), positions.end());
  ABSTRACT_RETURN_IF_ERROR(AddCurves(context, options, runner, results));
  ABSTRACT_ASSIGN_OR_RETURN(
      *results.mutable_criterion(),
      options.criterion_count.has_value()
          ? CriterionAt(results.curves(0), *options.criterion_count, options.threshold_points)
          : BestCriterion(results.curves(0), options.largest_criterion_count, options.threshold_points));
  if (!options.held_out_pairs.empty()) {
    ABSTRACT_RETURN_IF_ERROR(AddHeldOut(context, options, runner, results));
  }
  return results;
}

Fingerprint AblationFingerprint(const ExperimentContext& context, const AblationOptions& options) {
  // Methods, sizes and draws are in the names of the parts, so that a longer list
  // takes over what a shorter one had finished.
  Fingerprint fingerprint = CommonFingerprint(context, "ablation", options.pairs);
  fingerprint["held-out prompts"] =
      absl::StrCat(options.held_out_pairs.size(), " pairs, ", DigestOf(options.held_out_pairs));
  fingerprint["refusal phrases"] = absl::StrJoin(options.judge.phrases(), ", ");
  fingerprint["ranking"] = absl::StrJoin(options.ranking, " ", [](std::string* out, const auto& ranked) {
    absl::StrAppend(out, ranked.component().name());
  });
  fingerprint["--ablate-at"] = options.all_positions ? "all" : "decision";
  fingerprint["--max-new-tokens"] = absl::StrCat(options.max_new_tokens);
  return fingerprint;
}

}  // namespace mechinterp
