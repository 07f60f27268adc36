#include "services/engine/forward/gradient_hooks.h"

#include <vector>

#include "services/engine/interventions/apply_hooks.h"

namespace mechinterp::engine {

bool HasRun(const Batch::Item& item, int run) {
  return run < static_cast<int>(item.segment->gradient->runs.size());
}

const BackwardRun& RunOf(const Batch::Item& item, int run) {
  static const BackwardRun kDefault;
  return HasRun(item, run) ? item.segment->gradient->runs[run] : kDefault;
}

bool WantsGradient(const Batch::Item& item, const HookSite& site) {
  return item.segment->gradient->captures.count(site) > 0;
}

void RecordGradient(const Batch::Item& item, const HookSite& site, int run, const float* data, int64_t heads,
                    int64_t width) {
  const auto& captures = item.segment->gradient->captures;
  const auto capture = captures.find(site);
  if (capture == captures.end() || !HasRun(item, run)) return;
  Capture(capture->second, data, {item.first_position, item.rows, heads, width},
          item.segment->gradients[run][site]);
}

void TransposeEdits(const Batch::Item& item, const HookSite& site, float* data, int64_t heads,
                    int64_t width) {
  if (!Batch::Edits(item, site)) return;
  const HookPlan& plan = *item.segment->plan;
  const std::vector<CompiledEdit>& edits = plan.edits.at(site);
  for (auto edit = edits.rbegin(); edit != edits.rend(); ++edit) {
    ApplyTransposedEdit(*edit, plan.prompt_length, data, {item.first_position, item.rows, heads, width});
  }
}

}  // namespace mechinterp::engine
