#include "services/model/engine/hook_plan.h"

#include <algorithm>

namespace mechinterp::engine {

void EntryPoint::Include(const CompiledEdit& edit, int layer_count) {
  if (edit.positions.empty()) return;
  const bool past_blocks = !HasLayer(edit.site.point) && edit.site.point != HookPoint::kEmbed;
  layer = std::min(layer, past_blocks ? layer_count : edit.site.layer);
  position = std::min(position, edit.positions.front());
}

EntryPoint EarliestChange(const HookPlan& plan, int layer_count) {
  EntryPoint entry{layer_count, plan.prompt_length};
  for (const auto& [site, edits] : plan.edits) {
    for (const CompiledEdit& edit : edits) entry.Include(edit, layer_count);
  }
  return entry;
}

}  // namespace mechinterp::engine
