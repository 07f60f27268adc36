#include "services/engine/interventions/hook_plan.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace mechinterp::engine {
namespace {

// The last point at which a segment may enter and pass `point`.
HookPoint EntryBefore(HookPoint point) {
  if (!HasLayer(point) || point < HookPoint::kZ) return HookPoint::kResidPre;
  return point < HookPoint::kMlpPost ? HookPoint::kZ : HookPoint::kMlpPost;
}

}  // namespace

std::shared_ptr<const HookPlan> WithCaptures(const HookPlan* plan, int prompt_length,
                                             const std::set<HookSite>& sites,
                                             const std::vector<int>& positions) {
  auto capturing = std::make_shared<HookPlan>();
  if (plan != nullptr) capturing->edits = plan->edits;
  capturing->prompt_length = prompt_length;
  for (const HookSite& site : sites) capturing->captures[site] = {site, positions};
  return capturing;
}

void EntryPoint::Include(const CompiledEdit& edit, int layer_count, int prompt_length) {
  constexpr int kMostRowsWithinABlock = 64;
  if (edit.positions.empty()) return;
  const bool past_blocks = PartOf(edit.site.point) == PassPart::kHead;
  std::tie(layer, point) =
      std::min(std::pair(layer, point),
               std::pair(past_blocks ? layer_count : edit.site.layer, EntryBefore(edit.site.point)));
  position = std::min(position, edit.positions.front());
  if (prompt_length - position > kMostRowsWithinABlock) point = HookPoint::kResidPre;
}

EntryPoint EarliestChange(const HookPlan& plan, int layer_count) {
  EntryPoint entry{layer_count, plan.prompt_length};
  for (const auto& [site, edits] : plan.edits) {
    for (const CompiledEdit& edit : edits) entry.Include(edit, layer_count, plan.prompt_length);
  }
  return entry;
}

}  // namespace mechinterp::engine
