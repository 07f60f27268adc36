#ifndef SERVICES_ENGINE_INTERVENTIONS_EDIT_VALUES_H_
#define SERVICES_ENGINE_INTERVENTIONS_EDIT_VALUES_H_

#include <memory>
#include <vector>

#include "services/common/violations.h"
#include "services/engine/interventions/hook_plan.h"
#include "services/engine/interventions/intervention.h"

namespace mechinterp::engine {

// The values that edits put in place: from tensors sent along, and from runs.

// Sizes of the part of an activation that an edit touches.
struct PartSize {
  int64_t positions = 1;
  int64_t heads = 1;
  int64_t width = 1;
  bool has_head_axis = false;
};

// A tensor that came with a request, as values for the part: [P or 1, heads,
// width], [heads, width] or [width] where there is a head axis, [P or 1, width]
// or [width] where there is none. Other shapes are added to `violations`.
BroadcastValues BroadcastTensor(const HostTensor& tensor, const PartSize& part,
                                const FieldViolations& violations);

// `direction` scaled to unit length along its last axis; a zero direction is
// added to `violations`.
BroadcastValues UnitDirection(BroadcastValues direction, const FieldViolations& violations);

// One run that an edit reads.
struct SourceUse {
  std::shared_ptr<const RecordedRun> run;  // null: the run_index-th source run
  int run_index = -1;
  HookSite site;
  std::vector<int> positions;  // -1: this run has nothing for that row
};

// An edit whose values may have to wait for runs.
struct PendingEdit {
  enum class Fill {
    kNone,         // `edit` is complete
    kPerPosition,  // row i: mean over the uses that have a position for it
    kPooled,       // one row: mean over all uses and positions
    kDifference,   // row i: the first use's sender less the second's, to be added
  };
  CompiledEdit edit;
  Fill fill = Fill::kNone;
  std::vector<SourceUse> uses;
  int sender_head = 0;  // of kDifference, in the uses' sites
};

// Of kDifference: [positions, 1, width].
BroadcastValues ReadDifference(const PendingEdit& pending,
                               const std::vector<std::shared_ptr<const RecordedRun>>& runs);

// The values for a pending edit of the other kinds: the selected heads and dims of its uses' rows,
// summed in double precision.
BroadcastValues ReadSources(const PendingEdit& pending,
                            const std::vector<std::shared_ptr<const RecordedRun>>& runs);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_EDIT_VALUES_H_
