#ifndef SERVICES_ENGINE_INTERVENTIONS_HOOK_PLAN_H_
#define SERVICES_ENGINE_INTERVENTIONS_HOOK_PLAN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <variant>
#include <vector>

#include "services/engine/base/host_tensor.h"
#include "services/engine/interventions/hook_point.h"
#include "services/engine/interventions/intervention.h"

namespace mechinterp::engine {

// What is done at each site during a forward pass, with everything resolved:
// absolute positions, index lists, values. Made by the compiler in
// plan_compiler.h; immutable, shared between threads and segments.

// Values broadcast over [positions, heads, width] of the touched part: each of
// the three sizes is the part's own or 1.
struct BroadcastValues {
  HostTensor values;
  float At(int64_t p, int64_t h, int64_t w) const {
    const auto& s = values.shape;
    return values.values[((s[0] == 1 ? 0 : p) * s[1] + (s[1] == 1 ? 0 : h)) * s[2] + (s[2] == 1 ? 0 : w)];
  }
};

struct SetValues {
  BroadcastValues values;
};
struct AddValues {
  BroadcastValues values;
  float scale = 1;
};
struct Multiply {
  float factor = 1;
};
// `values` are unit vectors [1, heads or 1, width].
struct RemoveProjection {
  BroadcastValues direction;
};
struct AddNoise {
  float standard_deviation = 0;
  uint64_t seed = 0;
};
using CompiledChange = std::variant<SetValues, AddValues, Multiply, RemoveProjection, AddNoise>;

struct CompiledEdit {
  HookSite site;
  std::vector<int> positions;  // prompt positions touched, ascending; may be empty
  bool generated = false;      // whether positions past the prompt are touched
  std::vector<int> heads;      // ascending, never empty
  std::vector<int> dims;       // ascending; empty: all (however many keys there are)
  CompiledChange change;
};

struct CompiledCapture {
  HookSite site;
  std::vector<int> positions;  // prompt positions, ascending
};

struct HookPlan {
  int prompt_length = 0;
  std::map<HookSite, std::vector<CompiledEdit>> edits;  // of a site: in the order given
  std::map<HookSite, CompiledCapture> captures;

  bool empty() const { return edits.empty() && captures.empty(); }
};

// The edits of a plan (null: none) for a prompt of this length, with captures of its own.
std::shared_ptr<const HookPlan> WithCaptures(const HookPlan* plan, int prompt_length,
                                             const std::set<HookSite>& sites,
                                             const std::vector<int>& positions);

// The earliest place where a plan changes a prompt's forward pass. What comes before it is as
// in the clean run.
struct EntryPoint {
  int layer = 0;  // layer_count: only the head changes
  int position = 0;
  HookPoint point = HookPoint::kResidPre;  // of the layer: where a segment may enter

  // Whether a run from here starts from its tokens: nothing comes before it.
  bool IsBeginning() const { return layer == 0 && point == HookPoint::kResidPre; }

  // Moves it forward to where an edit changes the prompt, if that is earlier. A run of many
  // positions enters at a block's beginning: what it would start from within the block, kept
  // for every block, takes more memory than it saves time.
  void Include(const CompiledEdit& edit, int layer_count, int prompt_length);
};
// `prompt_length` and layer_count when nothing in the prompt is edited.
EntryPoint EarliestChange(const HookPlan& plan, int layer_count);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_HOOK_PLAN_H_
