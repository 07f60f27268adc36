#include "clients/experiments/direction.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/experiments/direction_edits.h"
#include "clients/experiments/direction_outcomes.h"
#include "clients/experiments/direction_probe.h"
#include "clients/experiments/direction_vectors.h"
#include "clients/experiments/fingerprints.h"
#include "clients/experiments/pair_split.h"
#include "services/common/hash.h"
#include "services/common/statistics.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// A subspace is as good as the best where it leaves so much more of what that takes away.
constexpr double kAsGood = 0.05;

void Remark(const ExperimentContext& context, const std::string& text) {
  if (context.monitor != nullptr) context.monitor->Remark(text);
}

double MeanOver(const std::vector<v1::DirectionPart>& parts, int index) {
  double sum = 0;
  for (const v1::DirectionPart& part : parts) sum += part.values(index);
  return sum / static_cast<double>(parts.size());
}

class Experiment {
 public:
  Experiment(const ExperimentContext& context, const DirectionOptions& options, MetricTokens tokens)
      : context_(context),
        options_(options),
        tokens_(std::move(tokens)),
        probe_(context, tokens_),
        split_(SplitPairs(options.pairs, options.validation_pairs)),
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
      ABSTRACT_RETURN_IF_ERROR(FindSubspace());
      CompareCategories();
    }
    ABSTRACT_RETURN_IF_ERROR(Test());
    DescribeRest();
    return std::move(study_);
  }

 private:
  v1::DirectionResults& results() { return study_.results; }
  const v1::DirectionCandidate& chosen() { return results().candidates(static_cast<int>(results().chosen())); }

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

  // Runs a part for each validation prompt of a class. `compute`: of a prompt.
  absl::StatusOr<std::vector<v1::DirectionPart>> OnValidation(
      std::string_view stage, v1::PromptClass prompt_class, size_t value_count, int runs,
      const std::function<absl::StatusOr<v1::DirectionPart>(const v1::Prompt&)>& compute) {
    std::vector<std::string> keys;
    for (const PromptPair& pair : split_.validation) {
      keys.push_back(absl::StrCat(std::string(stage), "/", pair.id, "/",
                                  std::string(PromptClassName(prompt_class))));
    }
    ran_ += runs * static_cast<int>(keys.size());
    return RunParts<v1::DirectionPart>(
        context_, absl::StrCat(std::string(stage), ", ", std::string(PromptClassName(prompt_class))), keys,
        [&](int i) { return compute(UserPrompt(split_.validation[static_cast<size_t>(i)].prompt(prompt_class))); },
        {[runs](const auto&) { return runs; },
         [value_count](int, const v1::DirectionPart& part) { return HasValues(part, value_count); }});
  }

  absl::Status MakeDirections();
  absl::Status Project();
  absl::Status ScoreCandidates();
  absl::Status ScoreAffine();
  absl::Status Choose();
  void CompareWithChosen();
  absl::Status FindSubspace();
  // Vectors of the training pairs at the chosen site, up to three of each.
  absl::StatusOr<std::vector<std::vector<float>>> OfPairs(
      std::string_view what, int runs,
      const std::function<absl::StatusOr<v1::DirectionPart>(const PromptPair&, const StreamSite&)>& compute);
  absl::StatusOr<PrincipalComponents> FindComponents();
  // Affine editing at a position, with the harmless mean there.
  EditSet SetTo(absl::Span<const std::vector<float>> units, int position) const;
  void CompareCategories();
  absl::Status Test();
  std::vector<DirectionCondition> Conditions();
  void DescribeRest();

  const ExperimentContext& context_;
  const DirectionOptions& options_;
  const MetricTokens tokens_;
  const DirectionProbe probe_;
  const PairSplit split_;
  const std::vector<PairCategory> categories_;
  StreamVectors harmful_, harmless_, differences_;         // means over the training prompts
  std::vector<StreamVectors> category_differences_;        // in their order
  std::vector<std::vector<float>> subspace_;               // the chosen one
  int ran_ = 0;
  DirectionStudy study_;
};

absl::Status Experiment::MakeDirections() {
  std::vector<std::string> keys;
  std::vector<std::vector<v1::Prompt>> prompts;
  for (const PairCategory& category : categories_) {
    for (const v1::PromptClass prompt_class : {v1::PROMPT_CLASS_HARMFUL, v1::PROMPT_CLASS_HARMLESS}) {
      keys.push_back(absl::StrCat("means/", category.name, "/", std::string(PromptClassName(prompt_class))));
      prompts.emplace_back();
      for (const PromptPair* pair : category.pairs) prompts.back().push_back(UserPrompt(pair->prompt(prompt_class)));
      ran_ += static_cast<int>(category.pairs.size());
    }
  }
  ABSTRACT_ASSIGN_OR_RETURN(
      const std::vector<v1::DirectionPart> parts,
      RunParts<v1::DirectionPart>(
          context_, "means", keys,
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
                            OnValidation("projections", v1::PROMPT_CLASS_HARMFUL, count, 1, project));
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmless,
                            OnValidation("projections", v1::PROMPT_CLASS_HARMLESS, count, 1, project));
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
  const size_t count = ablations.size();
  const auto ablate = [&](const v1::Prompt& prompt) { return probe_.Score(prompt, ablations); };
  const auto add = [&](const v1::Prompt& prompt) { return probe_.Score(prompt, additions); };
  const int runs = static_cast<int>(count) + 1;
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto harmful, OnValidation("ablations", v1::PROMPT_CLASS_HARMFUL, 2 * count + 1, runs, ablate));
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto harmless, OnValidation("ablations", v1::PROMPT_CLASS_HARMLESS, 2 * count + 1, runs, ablate));
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto added, OnValidation("additions", v1::PROMPT_CLASS_HARMLESS, 2 * count + 1, runs, add));
  results().set_harmful_log_odds(MeanOver(harmful, 0));
  results().set_harmless_log_odds(MeanOver(harmless, 0));
  for (v1::DirectionCandidate& candidate : *results().mutable_candidates()) {
    candidate.set_bypass(results().harmful_log_odds());
    candidate.set_induce(results().harmless_log_odds());
  }
  for (size_t i = 0; i < scored.size(); ++i) {
    v1::DirectionCandidate& candidate = *results().mutable_candidates(scored[i]);
    const int at = static_cast<int>(2 * i) + 1;
    candidate.set_bypass(MeanOver(harmful, at));
    candidate.set_induce(MeanOver(added, at));
    candidate.set_kl(MeanOver(harmless, at + 1));
  }
  return absl::OkStatus();
}

absl::Status Experiment::ScoreAffine() {
  std::vector<int> scored;
  std::vector<EditSet> sets;
  for (int i = 0; i < results().candidates_size(); ++i) {
    if (results().candidates(i).norm() == 0) continue;
    scored.push_back(i);
    sets.push_back(SetTo({UnitOf(VectorOf(i))}, SiteOf(i).position));
  }
  const size_t values = 2 * sets.size() + 1;
  const int runs = static_cast<int>(sets.size()) + 1;
  const auto set = [&](const v1::Prompt& prompt) { return probe_.Score(prompt, sets); };
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmful,
                            OnValidation("affine edits", v1::PROMPT_CLASS_HARMFUL, values, runs, set));
  ABSTRACT_ASSIGN_OR_RETURN(const auto harmless,
                            OnValidation("affine edits", v1::PROMPT_CLASS_HARMLESS, values, runs, set));
  for (size_t i = 0; i < scored.size(); ++i) {
    v1::DirectionCandidate& candidate = *results().mutable_candidates(scored[i]);
    candidate.set_affine_bypass(MeanOver(harmful, static_cast<int>(2 * i) + 1));
    candidate.set_affine_kl(MeanOver(harmless, static_cast<int>(2 * i) + 2));
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
  Remark(context_, "no direction is within the bounds of KL, induce score and layer; one is chosen by what "
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

absl::StatusOr<std::vector<std::vector<float>>> Experiment::OfPairs(
    std::string_view what, int runs,
    const std::function<absl::StatusOr<v1::DirectionPart>(const PromptPair&, const StreamSite&)>& compute) {
  const StreamSite site = SiteOf(static_cast<int>(results().chosen()));
  std::vector<std::string> keys;
  for (const PromptPair& pair : split_.training) {
    keys.push_back(absl::StrCat(std::string(what), "/", site.layer, "/", site.position, "/", pair.id));
  }
  ran_ += runs * static_cast<int>(keys.size());
  ABSTRACT_ASSIGN_OR_RETURN(
      const std::vector<v1::DirectionPart> parts,
      RunParts<v1::DirectionPart>(
          context_, what, keys, [&](int i) { return compute(split_.training[static_cast<size_t>(i)], site); },
          {[runs](const auto&) { return runs; },
           [&](int, const v1::DirectionPart& part) {
             const size_t count = part.tensor().size() / sizeof(float) / probe_.width();
             return count >= 1 && count <= 3 && HasTensor(part, count * probe_.width());
           }}));
  std::vector<std::vector<float>> vectors;
  for (const v1::DirectionPart& part : parts) {
    const std::vector<float> values = TensorOf(part);
    for (size_t first = 0; first < values.size(); first += probe_.width()) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(first);
      vectors.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(probe_.width()));
    }
  }
  return vectors;
}

// What the pairs differ by at the chosen site in as far as it moves the metric: of what else is there,
// and goes along with harm, gradients know nothing.
absl::StatusOr<PrincipalComponents> Experiment::FindComponents() {
  constexpr int kMostGradientDirections = 32;
  constexpr double kNearlyAll = 0.99;  // of the gradients' squares
  constexpr int kRunsOfGradients = 22;  // about: forward and back, at each of the steps
  ABSTRACT_ASSIGN_OR_RETURN(
      std::vector<std::vector<float>> differences,
      OfPairs("differences of pairs", 2, [&](const PromptPair& pair, const StreamSite& site) {
        return probe_.Difference(UserPrompt(pair.harmful), UserPrompt(pair.harmless), site);
      }));
  ABSTRACT_ASSIGN_OR_RETURN(
      const std::vector<std::vector<float>> gradients,
      OfPairs("gradients", kRunsOfGradients, [&](const PromptPair& pair, const StreamSite& site) {
        return probe_.Gradients(UserPrompt(pair.harmful), UserPrompt(pair.harmless), site);
      }));
  const PrincipalComponents read = FindPrincipalComponents(gradients, kMostGradientDirections);
  size_t count = 0;
  for (double share = 0; count < read.directions.size() && share < kNearlyAll; ++count) share += read.shares[count];
  for (std::vector<float>& difference : differences) {
    difference = PartWithin(difference, absl::MakeConstSpan(read.directions).first(count));
  }
  return FindPrincipalComponents(differences, options_.most_rank);
}

EditSet Experiment::SetTo(absl::Span<const std::vector<float>> units, int position) const {
  std::vector<absl::Span<const float>> mean;
  for (int layer = 0; layer < harmless_.layer_count; ++layer) mean.push_back(harmless_.at(layer, position));
  return SetPart(units, mean);
}

absl::Status Experiment::FindSubspace() {
  ABSTRACT_ASSIGN_OR_RETURN(const PrincipalComponents components, FindComponents());
  const int position = SiteOf(static_cast<int>(results().chosen())).position;
  std::vector<EditSet> sets;
  for (size_t rank = 1; rank <= components.directions.size(); ++rank) {
    sets.push_back(SetTo(absl::MakeConstSpan(components.directions).first(rank), position));
  }
  if (sets.empty()) return absl::OkStatus();
  const int runs = static_cast<int>(sets.size()) + 1;
  const auto ablate = [&](const v1::Prompt& prompt) { return probe_.Score(prompt, sets); };
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto harmful,
      OnValidation("subspaces", v1::PROMPT_CLASS_HARMFUL, 2 * sets.size() + 1, runs, ablate));
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto harmless,
      OnValidation("subspaces", v1::PROMPT_CLASS_HARMLESS, 2 * sets.size() + 1, runs, ablate));
  double explained = 0, lowest = results().harmful_log_odds();
  for (size_t i = 0; i < sets.size(); ++i) {
    v1::DirectionSubspace& subspace = *results().add_subspaces();
    explained += components.shares[i];
    subspace.set_rank(static_cast<uint32_t>(i + 1));
    subspace.set_bypass(MeanOver(harmful, static_cast<int>(2 * i + 1)));
    subspace.set_kl(MeanOver(harmless, static_cast<int>(2 * i + 2)));
    subspace.set_explained_share(std::min(1.0, explained));
    if (subspace.kl() <= options_.most_kl) lowest = std::min(lowest, subspace.bypass());
  }
  // The smallest that is as good as the best; the first where none is within the bound of KL.
  const double good_enough = lowest + kAsGood * (results().harmful_log_odds() - lowest);
  auto best = std::find_if(results().mutable_subspaces()->begin(), results().mutable_subspaces()->end(),
                           [&](const v1::DirectionSubspace& subspace) {
                             return subspace.kl() <= options_.most_kl && subspace.bypass() <= good_enough;
                           });
  if (best == results().mutable_subspaces()->end()) best = results().mutable_subspaces()->begin();
  best->set_is_chosen(true);
  subspace_.assign(components.directions.begin(), components.directions.begin() + best->rank());
  return absl::OkStatus();
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
    category.set_subspace_share(ShareWithin(own, subspace_));
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
  conditions.push_back({"affine", v1::DIRECTION_EDIT_AFFINE, 0, SetTo({unit}, site.position)});
  if (!subspace_.empty()) {
    conditions.push_back({"subspace", v1::DIRECTION_EDIT_SUBSPACE, 0, SetTo(subspace_, site.position)});
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
  ran_ += static_cast<int>(conditions.size() * options_.test_pairs.size()) * 4;  // scored, and answered
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
  results().set_run_count(static_cast<uint32_t>(ran_));
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
  NamedTensor subspace{"subspace", {static_cast<int64_t>(subspace_.size()), width}, {}};
  for (const std::vector<float>& vector : subspace_) {
    subspace.values.insert(subspace.values.end(), vector.begin(), vector.end());
  }
  if (!subspace_.empty()) study_.tensors.push_back(std::move(subspace));
}

}  // namespace

absl::StatusOr<DirectionStudy> RunDirection(const ExperimentContext& context, const DirectionOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(CheckModelFitsStudy(context.model));
  ABSTRACT_RETURN_IF_ERROR(CheckDisjoint(options.pairs, options.validation_pairs));
  ABSTRACT_RETURN_IF_ERROR(CheckDisjoint(options.pairs, options.test_pairs));
  ABSTRACT_RETURN_IF_ERROR(CheckDisjoint(options.validation_pairs, options.test_pairs));
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
