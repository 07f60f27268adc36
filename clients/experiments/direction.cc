#include "clients/experiments/direction.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/experiments/direction_edits.h"
#include "clients/experiments/direction_outcomes.h"
#include "clients/experiments/direction_parts.h"
#include "clients/experiments/direction_probe.h"
#include "clients/experiments/direction_subspace.h"
#include "clients/experiments/direction_vectors.h"
#include "clients/experiments/fingerprints.h"
#include "clients/experiments/pair_split.h"
#include "services/common/hash.h"
#include "services/common/statistics.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

void Remark(const ExperimentContext& context, const std::string& text) {
  if (context.monitor != nullptr) context.monitor->Remark(text);
}

class Experiment {
 public:
  Experiment(const ExperimentContext& context, const DirectionOptions& options, MetricTokens tokens)
      : context_(context),
        options_(options),
        tokens_(std::move(tokens)),
        probe_(context, tokens_),
        split_(SplitPairs(options.pairs, options.validation_pairs)),
        parts_(context, probe_, split_),
        categories_(CategoriesOf(split_.training)) {}

  absl::StatusOr<DirectionStudy> Run() {
    if (options_.validation_pairs.empty() && split_.training.size() == options_.pairs.size()) {
      Remark(context_, "directions are chosen on the pairs that they are made on, which are few");
    }
    ABSTRACT_RETURN_IF_ERROR(MakeDirections());
    ABSTRACT_RETURN_IF_ERROR(Project());
    ABSTRACT_RETURN_IF_ERROR(ScoreCandidates());
    ABSTRACT_RETURN_IF_ERROR(Choose());
    if (results().has_chosen()) {
      CompareWithChosen();
      const SubspaceSearch search{SiteOf(static_cast<int>(results().chosen())), harmless_,
                                  results().harmful_log_odds(), options_.most_kl, options_.most_rank};
      ABSTRACT_ASSIGN_OR_RETURN(subspace_, FindSubspace(parts_, probe_, search));
      results().mutable_subspaces()->Assign(subspace_.tried.begin(), subspace_.tried.end());
      CompareCategories();
    }
    ABSTRACT_RETURN_IF_ERROR(Test());
    DescribeRest();
    return std::move(study_);
  }

 private:
  v1::DirectionResults& results() { return study_.results; }
  const v1::DirectionCandidate& chosen() {
    return results().candidates(static_cast<int>(results().chosen()));
  }

  // Where candidates are: the template's tail, or the last position where there is none.
  int first_position() const { return differences_.position_count > 1 ? 1 : 0; }
  int position_count() const { return differences_.position_count - first_position(); }
  StreamSite SiteOf(int candidate) const {
    return {candidate % differences_.layer_count, first_position() + candidate / differences_.layer_count};
  }
  absl::Span<const float> VectorOf(int candidate) const {
    const StreamSite site = SiteOf(candidate);
    return differences_.at(site.layer, site.position);
  }

  absl::Status MakeDirections();
  absl::Status Project();
  absl::Status ScoreCandidates();
  absl::Status ScoreAffine();
  absl::Status Choose();
  void CompareWithChosen();
  void CompareCategories();
  absl::Status Test();
  std::vector<DirectionCondition> Conditions();
  void DescribeRest();

  const ExperimentContext& context_;
  const DirectionOptions& options_;
  const MetricTokens tokens_;
  const DirectionProbe probe_;
  const PairSplit split_;
  DirectionParts parts_;
  const std::vector<PairCategory> categories_;
  StreamVectors harmful_, harmless_, differences_;   // means over the training prompts
  std::vector<StreamVectors> category_differences_;  // in their order
  Subspace subspace_;
  DirectionStudy study_;
};

absl::Status Experiment::MakeDirections() {
  std::vector<std::string> keys;
  std::vector<std::vector<v1::Prompt>> prompts;
  for (const PairCategory& category : categories_) {
    for (const v1::PromptClass prompt_class : {v1::PROMPT_CLASS_HARMFUL, v1::PROMPT_CLASS_HARMLESS}) {
      keys.push_back(absl::StrCat("means/", category.name, "/", std::string(PromptClassName(prompt_class))));
      prompts.emplace_back();
      for (const PromptPair* pair : category.pairs)
        prompts.back().push_back(UserPrompt(pair->prompt(prompt_class)));
      parts_.AddRuns(static_cast<int>(category.pairs.size()));
    }
  }
  ABSTRACT_ASSIGN_OR_RETURN(
      const std::vector<v1::DirectionPart> parts,
      RunParts<v1::DirectionPart>(context_, "means", keys,
                                  [&](int i) { return probe_.Means(prompts[static_cast<size_t>(i)]); },
                                  {[](const auto&) { return 1; },
                                   [&](int, const v1::DirectionPart& part) {
                                     return IsStream(part, probe_.layer_count(), probe_.width());
                                   }}));
  StreamMean harmful, harmless;
  for (size_t i = 0; i < categories_.size(); ++i) {
    const StreamVectors of_harmful = StreamOf(parts[2 * i], probe_.layer_count(), probe_.width());
    const StreamVectors of_harmless = StreamOf(parts[2 * i + 1], probe_.layer_count(), probe_.width());
    if (of_harmful.values.size() != of_harmless.values.size() ||
        (i > 0 && of_harmful.values.size() != category_differences_.front().values.size())) {
      return absl::DataLossError("the chat template's tail is not of one length in all prompts");
    }
    category_differences_.push_back(of_harmful - of_harmless);
    harmful.Add(of_harmful, categories_[i].pairs.size());
    harmless.Add(of_harmless, categories_[i].pairs.size());
  }
  harmful_ = harmful.Mean();
  harmless_ = harmless.Mean();
  differences_ = harmful_ - harmless_;
  for (int position = first_position(); position < differences_.position_count; ++position) {
    for (int layer = 0; layer < differences_.layer_count; ++layer) {
      v1::DirectionCandidate& candidate = *results().add_candidates();
      candidate.set_position(differences_.from_end(position));
      candidate.set_layer(static_cast<uint32_t>(layer));
      candidate.set_norm(Norm(differences_.at(layer, position)));
    }
  }
  return absl::OkStatus();
}

// How well each difference tells the validation prompts apart, at the last instruction token too.
absl::Status Experiment::Project() {
  const StreamVectors units = UnitsOf(differences_);
  const size_t count = units.values.size() / units.width;
  const auto project = [&](const v1::Prompt& prompt) { return probe_.Projections(prompt, units); };
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmful,
                            parts_.OnValidation("projections", v1::PROMPT_CLASS_HARMFUL, count, 1, project));
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmless,
                            parts_.OnValidation("projections", v1::PROMPT_CLASS_HARMLESS, count, 1, project));
  const auto auroc = [&](int layer, int position) {
    const auto column = [&](const std::vector<v1::DirectionPart>& parts) {
      std::vector<double> values;
      for (const v1::DirectionPart& part : parts)
        values.push_back(part.values(layer * units.position_count + position));
      return values;
    };
    return AreaUnderRoc(column(harmful), column(harmless));
  };
  for (int i = 0; i < results().candidates_size(); ++i) {
    results().mutable_candidates(i)->set_auroc(auroc(SiteOf(i).layer, SiteOf(i).position));
  }
  if (first_position() == 0) return absl::OkStatus();
  for (int layer = 0; layer < units.layer_count; ++layer) {
    v1::HarmfulnessProbe& probe = *results().add_harmfulness();
    probe.set_layer(static_cast<uint32_t>(layer));
    probe.set_auroc(auroc(layer, 0));
  }
  return absl::OkStatus();
}

absl::Status Experiment::ScoreCandidates() {
  // Where the prompts do not differ, as at the template's tail before the first block, there is nothing
  // to ablate or add.
  std::vector<int> scored;
  std::vector<EditSet> ablations, additions;
  for (int i = 0; i < results().candidates_size(); ++i) {
    if (results().candidates(i).norm() == 0) continue;
    scored.push_back(i);
    ablations.push_back(ProjectOut({UnitOf(VectorOf(i))}));
    additions.push_back(AddTo(static_cast<uint32_t>(SiteOf(i).layer), VectorOf(i)));
  }
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmful,
                            parts_.ScoreOnValidation("ablations", v1::PROMPT_CLASS_HARMFUL, ablations));
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmless,
                            parts_.ScoreOnValidation("ablations", v1::PROMPT_CLASS_HARMLESS, ablations));
  ABSTRACT_ASSIGN_OR_RETURN(const auto added,
                            parts_.ScoreOnValidation("additions", v1::PROMPT_CLASS_HARMLESS, additions));
  results().set_harmful_log_odds(MeanCleanLogOdds(harmful));
  results().set_harmless_log_odds(MeanCleanLogOdds(harmless));
  for (v1::DirectionCandidate& candidate : *results().mutable_candidates()) {
    candidate.set_bypass(results().harmful_log_odds());
    candidate.set_induce(results().harmless_log_odds());
  }
  for (size_t i = 0; i < scored.size(); ++i) {
    v1::DirectionCandidate& candidate = *results().mutable_candidates(scored[i]);
    candidate.set_bypass(MeanLogOdds(harmful, i));
    candidate.set_induce(MeanLogOdds(added, i));
    candidate.set_kl(MeanKl(harmless, i));
  }
  return absl::OkStatus();
}

absl::Status Experiment::ScoreAffine() {
  std::vector<int> scored;
  std::vector<EditSet> sets;
  for (int i = 0; i < results().candidates_size(); ++i) {
    if (results().candidates(i).norm() == 0) continue;
    scored.push_back(i);
    sets.push_back(SetToMean({UnitOf(VectorOf(i))}, harmless_, SiteOf(i).position));
  }
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmful,
                            parts_.ScoreOnValidation("affine edits", v1::PROMPT_CLASS_HARMFUL, sets));
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmless,
                            parts_.ScoreOnValidation("affine edits", v1::PROMPT_CLASS_HARMLESS, sets));
  for (size_t i = 0; i < scored.size(); ++i) {
    v1::DirectionCandidate& candidate = *results().mutable_candidates(scored[i]);
    candidate.set_affine_bypass(MeanLogOdds(harmful, i));
    candidate.set_affine_kl(MeanKl(harmless, i));
  }
  return absl::OkStatus();
}

absl::Status Experiment::Choose() {
  results().set_most_kl(options_.most_kl);
  results().set_least_induce(options_.least_induce);
  results().set_layer_share(options_.layer_share);
  const auto may_be = [&](const v1::DirectionCandidate& candidate) {
    return candidate.norm() > 0 && candidate.layer() < options_.layer_share * probe_.layer_count();
  };
  // The eligible one with the lowest score.
  const auto choose = [&](v1::DirectionRule rule, const auto& is_eligible, const auto& score) {
    for (int i = 0; i < results().candidates_size(); ++i) {
      v1::DirectionCandidate& candidate = *results().mutable_candidates(i);
      candidate.set_is_eligible(may_be(candidate) && is_eligible(candidate));
      if (!candidate.is_eligible()) continue;
      if (!results().has_chosen() || score(candidate) < score(chosen())) {
        results().set_chosen(static_cast<uint32_t>(i));
        results().set_rule(rule);
      }
    }
  };
  using Candidate = v1::DirectionCandidate;
  choose(
      v1::DIRECTION_RULE_PUBLISHED,
      [&](const Candidate& c) { return c.kl() <= options_.most_kl && c.induce() >= options_.least_induce; },
      [](const Candidate& c) { return c.bypass(); });
  if (results().has_chosen()) return absl::OkStatus();
  Remark(context_,
         "no direction is within the bounds of KL, induce score and layer; one is chosen by what "
         "setting it to the harmless mean does");
  ABSTRACT_RETURN_IF_ERROR(ScoreAffine());
  choose(
      v1::DIRECTION_RULE_AFFINE, [&](const Candidate& c) { return c.affine_kl() <= options_.most_kl; },
      [](const Candidate& c) { return c.affine_bypass(); });
  if (!results().has_chosen()) Remark(context_, "none is within the bounds so either; none is tested");
  return absl::OkStatus();
}

void Experiment::CompareWithChosen() {
  const absl::Span<const float> direction = VectorOf(static_cast<int>(results().chosen()));
  for (int i = 0; i < results().candidates_size(); ++i) {
    results().mutable_candidates(i)->set_cosine(Cosine(VectorOf(i), direction));
  }
  for (v1::HarmfulnessProbe& probe : *results().mutable_harmfulness()) {
    probe.set_cosine(Cosine(differences_.at(static_cast<int>(probe.layer()), 0), direction));
  }
}

void Experiment::CompareCategories() {
  const StreamSite site = SiteOf(static_cast<int>(results().chosen()));
  const absl::Span<const float> direction = VectorOf(static_cast<int>(results().chosen()));
  for (size_t i = 0; i < categories_.size(); ++i) {
    const absl::Span<const float> own = category_differences_[i].at(site.layer, site.position);
    v1::CategoryDirection& category = *results().add_categories();
    category.set_category(categories_[i].name);
    category.set_pair_count(static_cast<uint32_t>(categories_[i].pairs.size()));
    category.set_cosine(Cosine(own, direction));
    for (const StreamVectors& other : category_differences_) {
      category.add_cosines(Cosine(own, other.at(site.layer, site.position)));
    }
    category.set_subspace_share(ShareWithin(own, subspace_.directions));
  }
}

std::vector<DirectionCondition> Experiment::Conditions() {
  std::vector<DirectionCondition> conditions = {{"none", v1::DIRECTION_EDIT_NONE, 0, {}}};
  if (!results().has_chosen()) return conditions;
  const StreamSite site = SiteOf(static_cast<int>(results().chosen()));
  const absl::Span<const float> direction = VectorOf(static_cast<int>(results().chosen()));
  const std::vector<float> unit = UnitOf(direction);
  const auto layer = static_cast<uint32_t>(site.layer);
  conditions.push_back({"ablation", v1::DIRECTION_EDIT_ABLATION, 0, ProjectOut({unit})});
  conditions.push_back({"addition", v1::DIRECTION_EDIT_ADDITION, 0, AddTo(layer, direction)});
  conditions.push_back({"affine", v1::DIRECTION_EDIT_AFFINE, 0, SetToMean({unit}, harmless_, site.position)});
  if (!subspace_.directions.empty()) {
    conditions.push_back({"subspace", v1::DIRECTION_EDIT_SUBSPACE, 0,
                          SetToMean(subspace_.directions, harmless_, site.position)});
  }
  for (int i = 0; i < options_.control_count; ++i) {
    const uint64_t seed = context_.seed + static_cast<uint64_t>(i);
    conditions.push_back({absl::StrCat("random ablation ", i), v1::DIRECTION_EDIT_RANDOM_ABLATION, seed,
                          ProjectOut({RandomUnit(probe_.width(), seed)})});
  }
  for (int i = 0; i < options_.control_count; ++i) {
    const uint64_t seed = context_.seed + static_cast<uint64_t>(i);
    conditions.push_back({absl::StrCat("random addition ", i), v1::DIRECTION_EDIT_RANDOM_ADDITION, seed,
                          AddTo(layer, Scaled(RandomUnit(probe_.width(), seed), Norm(direction)))});
  }
  return conditions;
}

absl::Status Experiment::Test() {
  if (options_.test_pairs.empty()) return absl::OkStatus();
  const std::vector<DirectionCondition> conditions = Conditions();
  ABSTRACT_ASSIGN_OR_RETURN(const auto outcomes, TestConditions(context_, options_, probe_, conditions));
  results().mutable_outcomes()->Assign(outcomes.begin(), outcomes.end());
  parts_.AddRuns(static_cast<int>(conditions.size() * options_.test_pairs.size()) *
                 4);  // scored, and answered
  if (context_.monitor == nullptr) return absl::OkStatus();
  for (size_t i = 0; i < conditions.size(); ++i) {
    context_.monitor->SetRefusalRate(absl::StrCat("direction ", conditions[i].name), v1::PROMPT_CLASS_HARMFUL,
                                     outcomes[i].harmful().rate());
  }
  return absl::OkStatus();
}

void Experiment::DescribeRest() {
  *results().mutable_provenance() = ProvenanceOf(context_, options_.pairs.size());
  for (const PromptPair& pair : split_.training) results().add_training_ids(pair.id);
  for (const PromptPair& pair : split_.validation) results().add_validation_ids(pair.id);
  for (const PromptPair& pair : options_.test_pairs) results().add_test_ids(pair.id);
  results().set_layer_count(static_cast<uint32_t>(probe_.layer_count()));
  results().set_run_count(static_cast<uint32_t>(parts_.run_count()));
  if (const auto agreement = AgreementWith(options_.published, results())) {
    *results().mutable_published() = *agreement;
  }
  // By position, then by layer, as candidates are.
  const auto tensor = [&](const std::string& name, const StreamVectors& stream) {
    NamedTensor& added = study_.tensors.emplace_back();
    added.name = name;
    added.shape = {position_count(), stream.layer_count, static_cast<int64_t>(stream.width)};
    for (int i = 0; i < results().candidates_size(); ++i) {
      const absl::Span<const float> vector = stream.at(SiteOf(i).layer, SiteOf(i).position);
      added.values.insert(added.values.end(), vector.begin(), vector.end());
    }
  };
  tensor("candidates", differences_);
  tensor("harmful_mean", harmful_);
  tensor("harmless_mean", harmless_);
  if (!results().has_chosen()) return;
  const absl::Span<const float> direction = VectorOf(static_cast<int>(results().chosen()));
  const auto width = static_cast<int64_t>(probe_.width());
  study_.tensors.push_back({"refusal", {width}, {direction.begin(), direction.end()}});
  NamedTensor subspace{"subspace", {static_cast<int64_t>(subspace_.directions.size()), width}, {}};
  for (const std::vector<float>& vector : subspace_.directions) {
    subspace.values.insert(subspace.values.end(), vector.begin(), vector.end());
  }
  if (!subspace_.directions.empty()) study_.tensors.push_back(std::move(subspace));
}

}  // namespace

absl::StatusOr<DirectionStudy> RunDirection(const ExperimentContext& context,
                                            const DirectionOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(CheckModelFitsStudy(context.model));
  const NamedPairs made = {"--prompts", options.pairs};
  const NamedPairs chosen = {"--validation-prompts", options.validation_pairs};
  const NamedPairs tested = {"--test-prompts", options.test_pairs};
  ABSTRACT_RETURN_IF_ERROR(CheckDisjoint(made, chosen));
  ABSTRACT_RETURN_IF_ERROR(CheckDisjoint(made, tested));
  ABSTRACT_RETURN_IF_ERROR(CheckDisjoint(chosen, tested));
  if (options.validation_pairs.empty() &&
      options.pairs.size() > SplitPairs(options.pairs, {}).training.size()) {
    const PairSplit split = SplitPairs(options.pairs, {});
    ABSTRACT_RETURN_IF_ERROR(CheckDisjoint({"--prompts", split.training}, {"--prompts", split.validation}));
  }
  ABSTRACT_ASSIGN_OR_RETURN(MetricTokens tokens, FindMetricTokens(*context.client, options.openings));
  return Experiment(context, options, std::move(tokens)).Run();
}

Fingerprint DirectionFingerprint(const ExperimentContext& context, const DirectionOptions& options) {
  Fingerprint fingerprint = CommonFingerprint(context, "direction", options.pairs);
  AddOpenings(options.openings, fingerprint);
  fingerprint["validation prompts"] = DigestOf(options.validation_pairs);
  fingerprint["test prompts"] = DigestOf(options.test_pairs);
  fingerprint["refusal phrases"] = absl::StrJoin(options.judge.phrases(), ", ");
  fingerprint["--most-kl"] = absl::StrCat(options.most_kl);
  fingerprint["--least-induce"] = absl::StrCat(options.least_induce);
  fingerprint["--layer-share"] = absl::StrCat(options.layer_share);
  fingerprint["--most-directions"] = absl::StrCat(options.most_rank);
  fingerprint["--controls"] = absl::StrCat(options.control_count);
  fingerprint["--max-new-tokens"] = absl::StrCat(options.max_new_tokens);
  uint64_t texts = kFnv1aBasis;
  for (const std::string& text : options.texts) texts = Fnv1a("\xff", Fnv1a(text, texts));
  fingerprint["texts"] = absl::StrCat(absl::Hex(texts, absl::kZeroPad16));
  return fingerprint;
}

}  // namespace mechinterp
