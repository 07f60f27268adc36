#ifndef SERVICES_ENGINE_FORWARD_GRADIENT_HOOKS_H_
#define SERVICES_ENGINE_FORWARD_GRADIENT_HOOKS_H_

#include <cstdint>

#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// What a segment has to say on the way back, at a site, of run `run` of its gradient plan.

// Whether the plan has so many runs; if not, its gradients are zeros that nobody reads.
bool HasRun(const Batch::Item& item, int run);
const BackwardRun& RunOf(const Batch::Item& item, int run);  // the default for those without

// Whether its gradient there is wanted.
bool WantsGradient(const Batch::Item& item, const HookSite& site);
// Records it: rows [rows, heads, width] of the item's. Nothing where it is not wanted.
void RecordGradient(const Batch::Item& item, const HookSite& site, int run, const float* data, int64_t heads,
                    int64_t width);
// Takes it through the segment's edits there, the last one first.
void TransposeEdits(const Batch::Item& item, const HookSite& site, float* data, int64_t heads, int64_t width);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_GRADIENT_HOOKS_H_
