#include "services/engine/interventions/source_runs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mechinterp::engine {

bool CheckSite(const HookSite& site, const ModelConfig& config, const FieldViolations& violations) {
  const int limit = HasLayer(site.point) ? config.layer_count() : 1;
  if (site.layer >= 0 && site.layer < limit) return true;
  violations.At("layer").Add(HasLayer(site.point)
                                 ? absl::StrCat("layer ", site.layer, " is not in [0, ", limit, ")")
                                 : absl::StrCat(SiteName({site.point, 0}), " has no layer; leave it 0"));
  return false;
}

bool IsUnread(const ActivationSource& source) {
  const auto* run = std::get_if<std::shared_ptr<const RecordedRun>>(&source.origin);
  return run != nullptr && *run == nullptr;
}

const TokenizedPrompt* PromptOf(const ActivationSource& source) {
  if (const auto* run = std::get_if<std::shared_ptr<const RecordedRun>>(&source.origin))
    return &(*run)->prompt;
  return std::get_if<TokenizedPrompt>(&source.origin);
}

SourceUse SourceRuns::Use(const EditTarget& target, const ActivationSource& source,
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

  auto request = std::find_if(requests_.begin(), requests_.end(),
                              [&](const SourceRunRequest& r) { return r.prompt.ids == prompt.ids; });
  if (request == requests_.end()) request = requests_.insert(requests_.end(), {prompt, {}, {}});
  use.run_index = static_cast<int>(request - requests_.begin());
  request->sites.insert(use.site);
  for (int position : use.positions) {
    if (position >= 0) request->positions.insert(position);
  }
  return use;
}

bool SourceRuns::CheckSender(const EditTarget& target, const PathPatch& edit,
                             const FieldViolations& violations) const {
  const FieldViolations at_sender = violations.At("sender");
  if (!CheckSite(edit.sender, config_, at_sender)) return false;
  const HookPoint point = edit.sender.point;
  if (point != HookPoint::kEmbed && point != HookPoint::kResult && point != HookPoint::kAttnOut &&
      point != HookPoint::kMlpOut) {
    at_sender.Add(absl::StrCat(SiteName(edit.sender),
                               " is nothing that is added to the residual stream: hook_embed, "
                               "hook_result, hook_attn_out and hook_mlp_out are"));
    return false;
  }
  const int heads = ShapeOf(point, config_).heads;
  if (edit.sender_head.has_value() != (point == HookPoint::kResult)) {
    violations.At("sender_head").Add("goes with hook_result, which needs it");
    return false;
  }
  if (edit.sender_head && (*edit.sender_head < 0 || *edit.sender_head >= heads)) {
    violations.At("sender_head").Add(absl::StrCat("head ", *edit.sender_head, " is not in [0, ", heads, ")"));
    return false;
  }
  const HookPoint reader = target.site.point;
  const bool reads = HasLayer(reader) && ShapeOf(reader, config_).width == config_.d_model &&
                     reader != HookPoint::kLn1Normalized && reader != HookPoint::kLn2Normalized;
  const auto order = [](const HookSite& site) { return std::pair(site.layer, site.point); };
  if (!reads || (point != HookPoint::kEmbed && order(edit.sender) >= order(target.site))) {
    at_sender.Add(absl::StrCat(SiteName(target.site), " does not read the residual stream after ",
                               SiteName(edit.sender)));
    return false;
  }
  return true;
}

SourceUse SourceRuns::UseAligned(const EditTarget& target, const ActivationSource& source,
                                 PositionAlignment alignment, const FieldViolations& violations) {
  const TokenizedPrompt& prompt = *PromptOf(source);
  if (source.positions) {
    std::vector<int> positions = ResolvePositions(*source.positions, prompt, violations.At("positions"));
    if (positions.size() != 1 && positions.size() != target.positions.size()) {
      violations.At("positions")
          .Add(absl::StrCat("selects ", positions.size(), " positions of the source for ",
                            target.positions.size(), " of the target"));
    }
    return Use(target, source, std::move(positions), violations);
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
  return Use(target, source, std::move(positions), violations);
}

}  // namespace mechinterp::engine
