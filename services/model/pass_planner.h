#ifndef SERVICES_MODEL_PASS_PLANNER_H_
#define SERVICES_MODEL_PASS_PLANNER_H_

#include <vector>

#include "absl/types/span.h"

namespace mechinterp {

// What a segment's rows are for.
enum class RowKind {
  kDecode,   // the next token of a continuation
  kPrefill,  // a prompt
  kSweep,    // a patched run on top of another run's keys and values
};
inline constexpr int kRowKindCount = 3;

// A segment, or what is left of it, that waits for a forward pass.
struct PendingSegment {
  RowKind kind = RowKind::kPrefill;
  int rows = 0;            // still to run
  bool can_split = false;  // into chunks, one a pass
  int index = 0;           // the caller's
};

// What one request waits for. Its segments do not depend on each other.
using PendingRun = std::vector<PendingSegment>;

struct PassLimits {
  int max_rows = 512;
  // Most rows that a segment brings into a pass, where it can split; and most
  // rows besides the decoding steps in a pass that has some: a decoding step
  // waits no longer than for so many. At most max_rows.
  int chunk_rows = 256;
};

// `rows` rows of runs[run][segment].
struct PassPiece {
  int run = 0;
  int segment = 0;
  int rows = 0;
};

// Chooses what goes into the next forward pass; at least one piece, at most one
// of each segment. `runs`: who waited longest first, none of them empty.
//
// Decoding steps come first: they are short, and somebody reads along. They
// leave a quarter of the rows to the others, if there are any. The others get
// equal shares of what is left, then of what those who want less leave over,
// segments in their order; each at least one segment, or a chunk of it, while
// there is room. So neither a sweep of a thousand rows nor a long prompt keeps
// anybody out: who found no room comes first the next time. Who comes first gets
// a segment in, even if it cannot split and is larger than what is left.
std::vector<PassPiece> PlanPass(absl::Span<const PendingRun* const> runs, const PassLimits& limits);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_PASS_PLANNER_H_
