#include "clients/experiments/patching.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/experiments/fingerprints.h"
#include "clients/experiments/patching_sweeps.h"
#include "clients/experiments/positions.h"
#include "clients/experiments/summaries.h"
#include "services/common/ranking.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr int kReportedEffects = 20;  // Leaders whose effects the monitor is told.

// One sweep of the experiment.
struct Task {
  size_t pair_index;  // In the pairs that are used.
  v1::PatchDirection direction;
  SweepFamily family;
};

// The pairs that can be patched and where.
struct Plan {
  std::vector<PromptPair> pairs;
  std::vector<int32_t> positions;   // As sent: from the end; empty is all.
  std::vector<std::string> labels;  // Of reported_positions.
  std::vector<int32_t> reported_positions;
};

int NeuronsPerGroup(const ExperimentContext& context, const PatchingOptions& options) {
  if (options.neurons_per_group > 0) return options.neurons_per_group;
  return std::max(1, (static_cast<int>(context.model.d_ff()) + 15) / 16);
}

absl::StatusOr<Plan> MakePlan(const ExperimentContext& context, const PatchingOptions& options) {
  Plan plan;
  std::vector<v1::TokenizeResponse> prompts;
  for (const PromptPair& pair : options.pairs) {
    ABSTRACT_ASSIGN_OR_RETURN(auto harmful, TokenizeUserPrompt(*context.client, pair.harmful));
    ABSTRACT_ASSIGN_OR_RETURN(auto harmless, TokenizeUserPrompt(*context.client, pair.harmless));
    if (options.all_positions && harmful.ids_size() != harmless.ids_size()) continue;
    plan.pairs.push_back(pair);
    prompts.push_back(std::move(harmful));
    prompts.push_back(std::move(harmless));
  }
  if (plan.pairs.empty()) {
    return absl::InvalidArgumentError(
        "no pair has prompts of equal length, which patching all positions needs; give --positions decision");
  }
  if (options.all_positions) {
    plan.reported_positions = AllPositions(prompts);
  } else if (!options.positions.empty()) {
    plan.reported_positions = plan.positions = options.positions;
  } else {
    ABSTRACT_ASSIGN_OR_RETURN(plan.positions,
                              FindDecisionPositions(*context.client, options.pairs[0].harmful));
    plan.reported_positions = plan.positions;
  }
  for (const int32_t position : plan.reported_positions)
    plan.labels.push_back(LabelPosition(position, prompts));
  return plan;
}

std::vector<Task> MakeTasks(const Plan& plan, const PatchingOptions& options) {
  std::vector<Task> tasks;
  for (size_t pair = 0; pair < plan.pairs.size(); ++pair) {
    for (const v1::PatchDirection direction : options.directions) {
      for (const SweepFamily family : kSweepFamilies) tasks.push_back({pair, direction, family});
    }
  }
  return tasks;
}

absl::StatusOr<v1::PatchingResults> RunTask(const ExperimentContext& context, const PatchingOptions& options,
                                            const Plan& plan, const MetricTokens& tokens, const Task& task) {
  const v1::RunPatchSweepRequest request =
      MakeSweep(task.family, plan.pairs[task.pair_index], task.direction, plan.positions,
                NeuronsPerGroup(context, options), tokens);
  const auto on_result = [&](int result_count) {
    if (context.monitor != nullptr) context.monitor->AdvancePart(1.0 / result_count);
  };
  ABSTRACT_ASSIGN_OR_RETURN(const Sweep sweep, context.client->RunPatchSweep(request, on_result));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context.model.identity(), sweep.header.model()));
  return EffectsOf(sweep, task.direction);
}

// Components of a family that are the model's, each once, with one effect of the pair at most.
bool Fits(const v1::PatchingResults& part, const Task& task, const ExperimentContext& context,
          const PatchingOptions& options) {
  const v1::GetModelResponse& model = context.model;
  const int layers = static_cast<int>(model.layer_count()), group = NeuronsPerGroup(context, options);
  std::set<std::string> names;
  for (const v1::ComponentEffect& effect : part.effects()) {
    const v1::Component& component = effect.component();
    if (FamilyOf(component.kind()) != task.family || component.layer() >= model.layer_count() ||
        component.head() >= model.head_count() || component.neuron_begin() >= model.d_ff() ||
        component.neuron_end() > model.d_ff() || component.name() != ComponentName(component) ||
        effect.direction() != task.direction || effect.pair_effects_size() > 1 ||
        !names.insert(component.name()).second) {
      return false;
    }
  }
  const int count = part.effects_size();
  switch (task.family) {
    case SweepFamily::kHeads:
      return count == layers * static_cast<int>(model.head_count());
    case SweepFamily::kNeurons:
      return count == layers * ((static_cast<int>(model.d_ff()) + group - 1) / group);
    case SweepFamily::kResidual:
      return count > 0 && count % (3 * layers) == 0;
  }
  return false;
}

auto EffectOrder(const v1::ComponentEffect& effect) {
  const v1::Component& component = effect.component();
  return std::make_tuple(effect.direction(), component.kind(), component.layer(), component.position(),
                         component.head(), component.neuron_begin());
}

// Joins the parts' effects by component and direction, and averages over pairs.
void AddEffects(const std::vector<Task>& tasks, const std::vector<v1::PatchingResults>& parts, uint64_t seed,
                v1::PatchingResults& results) {
  std::map<std::pair<v1::PatchDirection, std::string>, v1::ComponentEffect> by_component;
  for (size_t i = 0; i < tasks.size(); ++i) {
    results.set_run_count(results.run_count() + parts[i].run_count());
    for (const v1::ComponentEffect& part : parts[i].effects()) {
      v1::ComponentEffect& effect = by_component[{tasks[i].direction, part.component().name()}];
      *effect.mutable_component() = part.component();
      effect.set_direction(tasks[i].direction);
      for (const double value : part.pair_effects()) {
        effect.add_pair_effects(value);
        effect.add_pair_indices(static_cast<uint32_t>(tasks[i].pair_index));
      }
    }
  }
  for (auto& [key, effect] : by_component) {
    if (effect.pair_effects().empty()) continue;
    *effect.mutable_effect() = MakeEstimate(effect.pair_effects(), seed);
    *results.add_effects() = std::move(effect);
  }
  std::sort(results.mutable_effects()->begin(), results.mutable_effects()->end(),
            [](const auto& a, const auto& b) { return EffectOrder(a) < EffectOrder(b); });
}

void ReportLeaders(const ExperimentContext& context, const v1::PatchingResults& results) {
  if (context.monitor == nullptr) return;
  for (int i = 0; i < std::min(kReportedEffects, results.ranking_size()); ++i) {
    const v1::RankedComponent& leader = results.ranking(i);
    const std::string& name = leader.component().name();
    if (leader.has_denoising()) {
      context.monitor->SetEffect(name, v1::PATCH_DIRECTION_DENOISING, leader.denoising().mean());
    }
    if (leader.has_noising()) {
      context.monitor->SetEffect(name, v1::PATCH_DIRECTION_NOISING, leader.noising().mean());
    }
  }
}

v1::PatchingResults Describe(const ExperimentContext& context, const PatchingOptions& options,
                             const Plan& plan) {
  v1::PatchingResults results;
  *results.mutable_provenance() = ProvenanceOf(context, options.pairs.size());
  results.set_layer_count(context.model.layer_count());
  results.set_head_count(context.model.head_count());
  results.set_neuron_count(context.model.d_ff());
  for (const PromptPair& pair : plan.pairs) results.add_pair_ids(pair.id);
  results.mutable_positions()->Add(plan.reported_positions.begin(), plan.reported_positions.end());
  results.mutable_position_labels()->Assign(plan.labels.begin(), plan.labels.end());
  return results;
}

}  // namespace

absl::StatusOr<v1::PatchingResults> RunPatching(const ExperimentContext& context,
                                                const PatchingOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(CheckModelFitsStudy(context.model));
  ABSTRACT_ASSIGN_OR_RETURN(const MetricTokens tokens, FindMetricTokens(*context.client, options.openings));
  ABSTRACT_ASSIGN_OR_RETURN(const Plan plan, MakePlan(context, options));
  const std::vector<Task> tasks = MakeTasks(plan, options);
  std::vector<std::string> keys;
  for (const Task& task : tasks) {
    keys.push_back(absl::StrCat(plan.pairs[task.pair_index].id, "/",
                                std::string(DirectionName(task.direction)), "/",
                                std::string(SweepFamilyName(task.family))));
  }
  const auto run = [&](int i) {
    return RunTask(context, options, plan, tokens, tasks[static_cast<size_t>(i)]);
  };
  const PartTraits<v1::PatchingResults> traits = {
      [](const v1::PatchingResults& part) { return static_cast<int>(part.run_count()); },
      [&](int i, const v1::PatchingResults& part) { return Fits(part, tasks[i], context, options); }};
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<v1::PatchingResults> parts,
                            RunParts<v1::PatchingResults>(context, "patching", keys, run, traits));
  v1::PatchingResults results = Describe(context, options, plan);
  AddEffects(tasks, parts, context.seed, results);
  AddMissingRanking(results);
  ReportLeaders(context, results);
  return results;
}

Fingerprint PatchingFingerprint(const ExperimentContext& context, const PatchingOptions& options) {
  Fingerprint fingerprint = CommonFingerprint(context, "patching", options.pairs);
  AddOpenings(options.openings, fingerprint);
  fingerprint["--direction"] = absl::StrJoin(options.directions, ", ", [](std::string* out, auto direction) {
    absl::StrAppend(out, std::string(DirectionName(direction)));
  });
  fingerprint["--positions"] = options.all_positions       ? "all"
                               : options.positions.empty() ? "decision"
                                                           : absl::StrJoin(options.positions, ",");
  fingerprint["--neurons-per-group"] = absl::StrCat(NeuronsPerGroup(context, options));
  return fingerprint;
}

}  // namespace mechinterp
