#include "services/model/engine/hook_plan.h"

#include <algorithm>

namespace mechinterp::engine {

EntryPoint EarliestChange(const HookPlan& plan, int layer_count) {
  EntryPoint entry{layer_count, plan.prompt_length};
  for (const auto& [site, edits] : plan.edits) {
    for (const CompiledEdit& edit : edits) {
      if (edit.positions.empty()) continue;
      const bool past_blocks = !HasLayer(site.point) && site.point != HookPoint::kEmbed;
      entry.layer = std::min(entry.layer, past_blocks ? layer_count : site.layer);
      entry.position = std::min(entry.position, edit.positions.front());
    }
  }
  return entry;
}

}  // namespace mechinterp::engine
