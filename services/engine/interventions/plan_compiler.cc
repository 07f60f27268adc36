#include "services/engine/interventions/plan_compiler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/overloaded.h"
#include "services/engine/base/random.h"

namespace mechinterp::engine {
namespace {

// Range-checked, ascending, without duplicates.
std::vector<int> CheckIndices(const std::vector<int>& indices, int limit, absl::string_view what,
                              const FieldViolations& violations, absl::string_view field) {
  for (size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] < 0 || indices[i] >= limit) {
      violations.At(field, i).Add(absl::StrCat(what, " ", indices[i], " is not in [0, ", limit, ")"));
    }
  }
  std::vector<int> sorted = indices;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  return sorted;
}

bool CheckSite(const HookSite& site, const ModelConfig& config, const FieldViolations& violations) {
  const int limit = HasLayer(site.point) ? config.layer_count() : 1;
  if (site.layer >= 0 && site.layer < limit) return true;
  violations.At("layer").Add(HasLayer(site.point)
                                 ? absl::StrCat("layer ", site.layer, " is not in [0, ", limit, ")")
                                 : absl::StrCat(SiteName({site.point, 0}), " has no layer; leave it 0"));
  return false;
}

// Could not be read, and has been reported.
bool IsUnread(const ActivationSource& source) {
  const auto* run = std::get_if<std::shared_ptr<const RecordedRun>>(&source.origin);
  return run != nullptr && *run == nullptr;
}

// Null for a tensor.
const TokenizedPrompt* PromptOf(const ActivationSource& source) {
  if (const auto* run = std::get_if<std::shared_ptr<const RecordedRun>>(&source.origin))
    return &(*run)->prompt;
  return std::get_if<TokenizedPrompt>(&source.origin);
}

}  // namespace

// What an intervention touches, resolved.
struct PlanCompiler::Target {
  const TokenizedPrompt& prompt;
  const Selector& selector;
  HookSite site;
  std::vector<int> positions;  // as the selector says, whatever the scope
  PartSize part;
  bool over_keys = false;
};

void PlanCompiler::Add(const TokenizedPrompt& prompt, const InterventionSet& interventions,
                       const CaptureRequest& capture, const FieldViolations& violations) {
  PendingPlan pending;
  pending.plan.prompt_length = prompt.length();
  for (size_t i = 0; i < interventions.size(); ++i) {
    pending.edits.push_back(CompileIntervention(prompt, interventions[i], violations.At("interventions", i)));
  }
  if (!capture.sites.empty()) {
    const FieldViolations filter = violations.At("filter");
    const std::vector<int> positions = ResolvePositions(capture.positions, prompt, filter.At("positions"));
    for (size_t i = 0; i < capture.sites.size(); ++i) {
      if (CheckSite(capture.sites[i], config_, filter.At("sites", i))) {
        pending.plan.captures[capture.sites[i]] = {capture.sites[i], positions};
      }
    }
  }
  plans_.push_back(std::move(pending));
}

PendingEdit PlanCompiler::CompileIntervention(const TokenizedPrompt& prompt, const Intervention& intervention,
                                              const FieldViolations& violations) {
  PendingEdit pending;
  pending.edit.site = intervention.site;
  if (!CheckSite(intervention.site, config_, violations.At("site"))) return pending;

  const Selector& selector = intervention.selector;
  const FieldViolations at_selector = violations.At("selector");
  Target target{prompt, selector, intervention.site, {}, {}, IsOverKeys(intervention.site.point)};
  target.positions = ResolvePositions(selector.positions, prompt, at_selector.At("positions"));

  const SiteShape shape = ShapeOf(intervention.site.point, config_);
  const int width = target.over_keys ? prompt.length() : shape.width;
  if (!selector.heads.empty() && !shape.has_head_axis) {
    at_selector.At("heads").Add(absl::StrCat(SiteName(intervention.site), " has no head axis"));
    return pending;
  }
  pending.edit.heads = CheckIndices(selector.heads, shape.heads, "head", at_selector, "heads");
  pending.edit.dims = CheckIndices(selector.dims, width, "dim", at_selector, "dims");
  if (pending.edit.heads.empty()) {
    pending.edit.heads.resize(shape.heads);
    std::iota(pending.edit.heads.begin(), pending.edit.heads.end(), 0);
  }
  target.part = {static_cast<int64_t>(target.positions.size()),
                 static_cast<int64_t>(pending.edit.heads.size()),
                 pending.edit.dims.empty() ? width : static_cast<int64_t>(pending.edit.dims.size()),
                 shape.has_head_axis};
  CompileEdit(target, intervention, pending, violations);
  return pending;
}

// Compiles the edit and then, knowing whether it has one value per position,
// settles which positions it touches.
void PlanCompiler::CompileEdit(const Target& target, const Intervention& intervention, PendingEdit& pending,
                               const FieldViolations& violations) {
  auto finite = [&](double value, absl::string_view edit, absl::string_view field) {
    if (!std::isfinite(value)) violations.At(edit).At(field).Add("must be finite");
    return static_cast<float>(value);
  };
  CompiledChange& change = pending.edit.change;
  std::visit(
      Overloaded{
          [&](const Replacement& edit) {
            CompileReplacement(target, edit, pending, violations.At("replacement").At("source"));
          },
          [&](const Zeroing&) {
            change = SetValues{{{{1, 1, 1}, {0.f}}}};
          },
          [&](const MeanReplacement& edit) {
            CompileMean(target, edit, pending, violations.At("mean_replacement"));
          },
          [&](const Resampling& edit) {
            CompileResampling(target, edit, pending, violations.At("resampling"));
          },
          [&](const Addition& edit) {
            change =
                AddValues{BroadcastTensor(edit.vector, target.part, violations.At("addition").At("vector")),
                          finite(edit.scale, "addition", "scale")};
          },
          [&](const Scaling& edit) { change = Multiply{finite(edit.factor, "scaling", "factor")}; },
          [&](const ProjectionRemoval& edit) {
            const FieldViolations at = violations.At("projection_removal").At("direction");
            PartSize one_position = target.part;
            one_position.positions = 1;
            change = RemoveProjection{UnitDirection(BroadcastTensor(edit.direction, one_position, at), at)};
          },
          [&](const NoiseAddition& edit) {
            const float deviation = finite(edit.standard_deviation, "noise_addition", "standard_deviation");
            if (deviation < 0)
              violations.At("noise_addition").At("standard_deviation").Add("must be at least 0");
            change = AddNoise{deviation, edit.seed};
          },
      },
      intervention.edit);

  const BroadcastValues* values = nullptr;
  if (const auto* set = std::get_if<SetValues>(&change)) values = &set->values;
  if (const auto* add = std::get_if<AddValues>(&change)) values = &add->values;
  if (values != nullptr && values->values.shape.size() != 3) values = nullptr;  // to come, or reported
  const bool has_row_per_position = pending.fill == PendingEdit::Fill::kPerPosition
                                        ? !pending.uses.empty() && pending.uses[0].positions.size() > 1
                                        : values != nullptr && values->values.shape[0] > 1;
  const bool has_value_per_key = target.over_keys && (pending.fill != PendingEdit::Fill::kNone ||
                                                      std::holds_alternative<RemoveProjection>(change) ||
                                                      (values != nullptr && values->values.shape[2] > 1));
  const bool prompt_only = has_row_per_position || has_value_per_key;

  InterventionScope scope = target.selector.scope;
  if (scope == InterventionScope::kDefault) {
    const bool everywhere = target.selector.positions.selects_all() && !prompt_only &&
                            pending.fill != PendingEdit::Fill::kPerPosition;
    scope = everywhere ? InterventionScope::kPromptAndGenerated : InterventionScope::kPrompt;
  }
  pending.edit.generated = scope != InterventionScope::kPrompt;
  if (pending.edit.generated && prompt_only) {
    violations.At("selector")
        .At("scope")
        .Add(has_value_per_key
                 ? "this edit has a value for each prompt position as key, so it has none when generating"
                 : "this edit has a value for each prompt position, so it has none for generated ones");
  }
  if (scope == InterventionScope::kGenerated) {
    if (!target.selector.positions.selects_all()) {
      violations.At("selector")
          .At("scope")
          .Add("generated positions cannot be selected by index; leave positions empty");
    }
  } else {
    pending.edit.positions = target.positions;
  }
}

SourceUse PlanCompiler::UseSource(const Target& target, const ActivationSource& source,
                                  std::vector<int> positions, const FieldViolations& violations) {
  SourceUse use;
  use.site = source.site.value_or(target.site);
  use.positions = std::move(positions);
  if (!CheckSite(use.site, config_, violations.At("site"))) return use;
  const TokenizedPrompt& prompt = *PromptOf(source);
  const SiteShape wanted = ShapeOf(target.site.point, config_), given = ShapeOf(use.site.point, config_);
  if (given.heads != wanted.heads || given.width != wanted.width) {
    violations.At("site").Add(
        absl::StrCat(SiteName(use.site), " and ", SiteName(target.site), " differ in shape"));
  }
  if (target.over_keys && prompt.length() != target.prompt.length()) {
    violations.Add(absl::StrCat(SiteName(target.site),
                                " has a value per key, so the prompts must be equally long, not ",
                                target.prompt.length(), " and ", prompt.length(), " tokens"));
  }

  if (const auto* run = std::get_if<std::shared_ptr<const RecordedRun>>(&source.origin)) {
    use.run = *run;
    auto recorded = use.run->activations.find(use.site);
    if (recorded == use.run->activations.end()) {
      violations.Add(absl::StrCat("the stored run has no ", SiteName(use.site)));
      return use;
    }
    for (int position : use.positions) {
      const std::vector<int>& kept = recorded->second.positions;
      if (position >= 0 && !std::binary_search(kept.begin(), kept.end(), position)) {
        violations.Add(absl::StrCat("the stored run has no position ", position, " of ", SiteName(use.site)));
        return use;
      }
    }
    return use;
  }

  auto request = std::find_if(source_runs_.begin(), source_runs_.end(),
                              [&](const SourceRunRequest& r) { return r.prompt.ids == prompt.ids; });
  if (request == source_runs_.end()) request = source_runs_.insert(source_runs_.end(), {prompt, {}, {}});
  use.run_index = static_cast<int>(request - source_runs_.begin());
  request->sites.insert(use.site);
  for (int position : use.positions) {
    if (position >= 0) request->positions.insert(position);
  }
  return use;
}

SourceUse PlanCompiler::UseAligned(const Target& target, const ActivationSource& source,
                                   PositionAlignment alignment, const FieldViolations& violations) {
  const TokenizedPrompt& prompt = *PromptOf(source);
  if (source.positions) {
    std::vector<int> positions = ResolvePositions(*source.positions, prompt, violations.At("positions"));
    if (positions.size() != 1 && positions.size() != target.positions.size()) {
      violations.At("positions")
          .Add(absl::StrCat("selects ", positions.size(), " positions of the source for ",
                            target.positions.size(), " of the target"));
    }
    return UseSource(target, source, std::move(positions), violations);
  }
  const int shift = prompt.length() - target.prompt.length();
  bool from_end = alignment == PositionAlignment::kEnd;
  if (alignment == PositionAlignment::kDefault && shift != 0) {
    from_end = target.selector.positions.counts_from_end();
    if (!from_end) {
      violations.Add(absl::StrCat(
          "the prompts differ in length (", target.prompt.length(), " and ", prompt.length(), " tokens), so ",
          target.selector.positions.selects_all() ? "all positions" : "positions counted from the start",
          " do not correspond; select positions from the end (negative or named), or set an alignment"));
      return {};
    }
  }
  std::vector<int> positions = target.positions;
  for (int& position : positions) {
    const int at = from_end ? position + shift : position;
    if (at < 0 || at >= prompt.length()) {
      violations.Add(absl::StrCat("position ", position,
                                  " of the target has no counterpart in the source of ", prompt.length(),
                                  " tokens"));
      return {};
    }
    position = at;
  }
  return UseSource(target, source, std::move(positions), violations);
}

void PlanCompiler::CompileReplacement(const Target& target, const Replacement& edit, PendingEdit& pending,
                                      const FieldViolations& violations) {
  if (const auto* tensor = std::get_if<HostTensor>(&edit.source.origin)) {
    pending.edit.change = SetValues{BroadcastTensor(*tensor, target.part, violations.At("tensor"))};
    return;
  }
  if (IsUnread(edit.source)) return;
  pending.fill = PendingEdit::Fill::kPerPosition;
  pending.uses = {UseAligned(target, edit.source, edit.source.alignment, violations)};
}

void PlanCompiler::CompileMean(const Target& target, const MeanReplacement& edit, PendingEdit& pending,
                               const FieldViolations& violations) {
  const bool pooled = edit.axis == MeanAxis::kSourcesAndPositions;
  pending.fill = pooled ? PendingEdit::Fill::kPooled : PendingEdit::Fill::kPerPosition;
  if (edit.sources.empty()) violations.At("sources").Add("must not be empty");
  std::vector<bool> covered(target.positions.size(), false);
  for (size_t i = 0; i < edit.sources.size(); ++i) {
    const ActivationSource& source = edit.sources[i];
    const FieldViolations at = violations.At("sources", i);
    if (IsUnread(source)) return;
    const TokenizedPrompt* prompt = PromptOf(source);
    if (prompt == nullptr) {
      at.Add("must be a stored run or a prompt");
      continue;
    }
    std::vector<int> positions;
    if (pooled) {
      positions =
          ResolvePositions(source.positions.value_or(target.selector.positions), *prompt, at.At("positions"));
    } else {
      if (source.positions) at.At("positions").Add("does not go with MEAN_AXIS_SOURCES");
      for (size_t p = 0; p < target.positions.size(); ++p) {
        const int position = target.positions[p] + prompt->length() - target.prompt.length();
        positions.push_back(position < 0 ? -1 : position);
        if (position >= 0) covered[p] = true;
      }
    }
    pending.uses.push_back(UseSource(target, source, std::move(positions), at));
  }
  if (pooled || edit.sources.empty()) return;
  for (size_t p = 0; p < covered.size(); ++p) {
    if (covered[p]) continue;
    violations.At("sources").Add(absl::StrCat("none is long enough to have a counterpart of position ",
                                              target.positions[p], " (counted from the end)"));
    return;
  }
}

void PlanCompiler::CompileResampling(const Target& target, const Resampling& edit, PendingEdit& pending,
                                     const FieldViolations& violations) {
  pending.fill = PendingEdit::Fill::kPerPosition;
  if (edit.sources.empty()) {
    violations.At("sources").Add("must not be empty");
    return;
  }
  for (size_t i = 0; i < edit.sources.size(); ++i) {
    if (IsUnread(edit.sources[i])) return;
    if (PromptOf(edit.sources[i]) == nullptr) {
      violations.At("sources", i).Add("must be a stored run or a prompt");
      return;
    }
  }
  const size_t drawn = RandomBits(edit.seed, /*stream=*/0, /*counter=*/0) % edit.sources.size();
  pending.uses = {
      UseAligned(target, edit.sources[drawn], PositionAlignment::kEnd, violations.At("sources", drawn))};
}

std::vector<EntryPoint> PlanCompiler::EntryPoints() const {
  std::vector<EntryPoint> entries;
  for (const PendingPlan& pending : plans_) {
    const int length = pending.plan.prompt_length;
    EntryPoint& entry = entries.emplace_back(EntryPoint{config_.layer_count(), length});
    for (const PendingEdit& edit : pending.edits) entry.Include(edit.edit, config_.layer_count(), length);
  }
  return entries;
}

int64_t PlanCompiler::ValueBytes() const {
  int64_t values = 0;
  for (const PendingPlan& pending : plans_) {
    for (const PendingEdit& edit : pending.edits) {
      if (!std::holds_alternative<SetValues>(edit.edit.change) &&
          !std::holds_alternative<AddValues>(edit.edit.change)) {
        continue;
      }
      const int width = ShapeOf(edit.edit.site.point, config_).width;
      const int64_t dims = !edit.edit.dims.empty() ? static_cast<int64_t>(edit.edit.dims.size())
                           : width == kWidthIsKeys ? pending.plan.prompt_length
                                                   : width;
      const auto positions = std::max<int64_t>(1, static_cast<int64_t>(edit.edit.positions.size()));
      values += positions * static_cast<int64_t>(edit.edit.heads.size()) * dims;
    }
  }
  return values * static_cast<int64_t>(sizeof(float));
}

int PlanCompiler::LongestRunWith(HookPoint point) const {
  int longest = 0;
  for (const PendingPlan& pending : plans_) {
    const bool edits = std::any_of(pending.edits.begin(), pending.edits.end(),
                                   [&](const PendingEdit& edit) { return edit.edit.site.point == point; });
    const bool captures = std::any_of(pending.plan.captures.begin(), pending.plan.captures.end(),
                                      [&](const auto& capture) { return capture.first.point == point; });
    if (edits || captures) longest = std::max(longest, pending.plan.prompt_length);
  }
  for (const SourceRunRequest& run : source_runs_) {
    const bool reads = std::any_of(run.sites.begin(), run.sites.end(),
                                   [&](const HookSite& site) { return site.point == point; });
    if (reads) longest = std::max(longest, run.prompt.length());
  }
  return longest;
}

std::vector<std::shared_ptr<const HookPlan>> PlanCompiler::Finish(
    const std::vector<std::shared_ptr<const RecordedRun>>& runs) const {
  std::vector<std::shared_ptr<const HookPlan>> plans;
  for (const PendingPlan& pending : plans_) {
    auto plan = std::make_shared<HookPlan>(pending.plan);
    for (const PendingEdit& edit : pending.edits) {
      CompiledEdit compiled = edit.edit;
      if (edit.fill != PendingEdit::Fill::kNone) compiled.change = SetValues{ReadSources(edit, runs)};
      plan->edits[compiled.site].push_back(std::move(compiled));
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

}  // namespace mechinterp::engine
