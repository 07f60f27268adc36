#include "services/engine/interventions/plan_compiler.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/engine/interventions/edit_compiler.h"

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

// Whether an edit's values differ from position to position, or from key to key, of the
// prompt: then there are none for generated positions.
struct ValueAxes {
  bool positions = false;
  bool keys = false;
};

ValueAxes AxesOf(const PendingEdit& pending, bool over_keys) {
  const CompiledChange& change = pending.edit.change;
  const BroadcastValues* values = nullptr;
  if (const auto* set = std::get_if<SetValues>(&change)) values = &set->values;
  if (const auto* add = std::get_if<AddValues>(&change)) values = &add->values;
  if (values != nullptr && values->values.shape.size() != 3) values = nullptr;  // to come, or reported
  ValueAxes axes;
  axes.positions = pending.fill == PendingEdit::Fill::kDifference ||
                   (pending.fill == PendingEdit::Fill::kPerPosition
                        ? !pending.uses.empty() && pending.uses[0].positions.size() > 1
                        : values != nullptr && values->values.shape[0] > 1);
  axes.keys = over_keys &&
              (pending.fill != PendingEdit::Fill::kNone || std::holds_alternative<RemoveProjection>(change) ||
               (values != nullptr && values->values.shape[2] > 1));
  return axes;
}

// Numbers that a complete change holds.
int64_t ValueCount(const CompiledChange& change) {
  if (const auto* set = std::get_if<SetValues>(&change)) return set->values.values.size();
  if (const auto* add = std::get_if<AddValues>(&change)) return add->values.values.size();
  if (const auto* removal = std::get_if<RemoveProjection>(&change)) return removal->direction.values.size();
  return 0;
}

// Of the indices in an edit, which the finished plan has too.
int64_t IndexBytes(const PendingEdit& edit) {
  size_t count = 2 * (edit.edit.positions.size() + edit.edit.heads.size() + edit.edit.dims.size());
  for (const SourceUse& use : edit.uses) count += use.positions.size();
  return static_cast<int64_t>(count * sizeof(int));
}

// Settles which positions a compiled edit touches.
void SettleScope(const EditTarget& target, PendingEdit& pending, const FieldViolations& violations) {
  const ValueAxes axes = AxesOf(pending, target.over_keys);
  const bool prompt_only = axes.positions || axes.keys;
  InterventionScope scope = target.selector.scope;
  if (scope == InterventionScope::kDefault) {
    const bool everywhere = target.selector.positions.selects_all() && !prompt_only &&
                            pending.fill != PendingEdit::Fill::kPerPosition &&
                            pending.fill != PendingEdit::Fill::kDifference;
    scope = everywhere ? InterventionScope::kPromptAndGenerated : InterventionScope::kPrompt;
  }
  pending.edit.generated = scope != InterventionScope::kPrompt;
  const FieldViolations at_scope = violations.At("selector").At("scope");
  if (pending.edit.generated && prompt_only) {
    at_scope.Add(axes.keys
                     ? "this edit has a value for each prompt position as key, so it has none when generating"
                     : "this edit has a value for each prompt position, so it has none for generated ones");
  }
  if (scope != InterventionScope::kGenerated) {
    pending.edit.positions = target.positions;
  } else if (!target.selector.positions.selects_all()) {
    at_scope.Add("generated positions cannot be selected by index; leave positions empty");
  }
}

}  // namespace

void PlanCompiler::Add(const TokenizedPrompt& prompt, const InterventionSet& interventions,
                       const CaptureRequest& capture, const FieldViolations& violations) {
  PendingPlan pending;
  pending.plan.prompt_length = prompt.length();
  for (size_t i = 0; i < interventions.size(); ++i) {
    const std::optional<size_t>& index = interventions[i].request_index;
    const FieldViolations at = violations.At("interventions", index.value_or(i));
    // One edit at several sites is told of once.
    const bool is_known = i > 0 && index.has_value() && index == interventions[i - 1].request_index;
    if (is_known && !at.empty()) continue;
    pending.edits.push_back(CompileIntervention(prompt, interventions[i], at));
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
  EditTarget target{prompt, selector, intervention.site, {}, {}, IsOverKeys(intervention.site.point)};
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
  EditCompiler(source_runs_).Compile(target, intervention.edit, pending, violations);
  SettleScope(target, pending, violations);
  return pending;
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

int64_t PlanCompiler::PlanBytes() const {
  // Measured: what a plan, an edit and a capture take beside their values and indices.
  constexpr int64_t kPlanBytes = 640, kEditBytes = 640, kCaptureBytes = 512;
  int64_t bytes = 0;
  for (const PendingPlan& pending : plans_) {
    bytes += kPlanBytes;
    for (const auto& [site, capture] : pending.plan.captures) {
      // Here, in the finished plan, and in what is recorded.
      bytes += kCaptureBytes + 3 * static_cast<int64_t>(capture.positions.size() * sizeof(int));
    }
    for (const PendingEdit& edit : pending.edits) {
      const int64_t values = edit.fill == PendingEdit::Fill::kNone
                                 ? 2 * ValueCount(edit.edit.change)  // here and in the finished plan
                                 : FilledCount(edit, pending.plan.prompt_length);
      bytes += kEditBytes + IndexBytes(edit) + values * static_cast<int64_t>(sizeof(float));
    }
  }
  return bytes;
}

// In double precision, for one edit at a time.
int64_t PlanCompiler::LargestSumBytes() const {
  int64_t largest = 0;
  for (const PendingPlan& pending : plans_) {
    for (const PendingEdit& edit : pending.edits) {
      if (edit.fill == PendingEdit::Fill::kNone || edit.fill == PendingEdit::Fill::kDifference) continue;
      largest = std::max(largest, FilledCount(edit, pending.plan.prompt_length));
    }
  }
  return largest * static_cast<int64_t>(sizeof(double));
}

// Values that an edit which reads runs will have.
int64_t PlanCompiler::FilledCount(const PendingEdit& edit, int prompt_length) const {
  const int width = ShapeOf(edit.edit.site.point, config_).width;
  if (edit.fill == PendingEdit::Fill::kDifference) {
    return edit.uses.empty() ? 0 : static_cast<int64_t>(edit.uses[0].positions.size()) * width;
  }
  const int64_t dims = !edit.edit.dims.empty() ? static_cast<int64_t>(edit.edit.dims.size())
                       : width == kWidthIsKeys ? prompt_length
                                               : width;
  const int64_t rows = edit.fill == PendingEdit::Fill::kPooled || edit.uses.empty()
                           ? 1
                           : static_cast<int64_t>(edit.uses[0].positions.size());
  return rows * static_cast<int64_t>(edit.edit.heads.size()) * dims;
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
  for (const SourceRunRequest& run : source_runs()) {
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
      if (edit.fill == PendingEdit::Fill::kDifference) {
        compiled.change = AddValues{ReadDifference(edit, runs)};
      } else if (edit.fill != PendingEdit::Fill::kNone) {
        compiled.change = SetValues{ReadSources(edit, runs)};
      }
      plan->edits[compiled.site].push_back(std::move(compiled));
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

}  // namespace mechinterp::engine
