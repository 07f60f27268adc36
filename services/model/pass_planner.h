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

// The segments that one request waits for. They do not depend on each other.
using PendingRun = std::vector<PendingSegment>;

// Whose a run is, and how much of a pass it may want beside others'.
struct RunShare {
  int client = 0;     // runs of one client share what the client gets
  double weight = 1;  // of the client: twice the rows of one with half of it. Above 0
};

struct PassLimits {
  int max_rows = 512;
  // Most rows of one segment in a pass, where it can split. At most max_rows.
  int chunk_rows = 256;
  // Most rows besides the decoding steps in a pass that has some, which bounds what a decoding
  // step waits for; 0: chunk_rows.
  int rows_beside_decodes = 0;
};

// `rows` rows of runs[run][segment].
struct PassPiece {
  int run = 0;
  int segment = 0;
  int rows = 0;
};

// Chooses what goes into the next forward pass; at least one piece, at most one
// of each segment. `runs`: longest-waiting first, none of them empty.
//
// Decoding steps come first: they are short, and their text is read as it comes. They
// leave a quarter of the rows to other work, if there is any. Other runs get equal shares
// of the remaining rows, by client and weight, then of what smaller runs leave over, segments in their order;
// each at least one segment, or a chunk of it, while rows remain. So neither a sweep of a
// thousand rows nor a long prompt starves the others: a run that got no rows is first in
// the next pass. The first run gets a segment in, even if it cannot split and is larger
// than the remaining rows. `shares`: of each run; empty: all are clients of equal weight.
std::vector<PassPiece> PlanPass(absl::Span<const PendingRun* const> runs, const PassLimits& limits,
                                absl::Span<const RunShare> shares = {});

}  // namespace mechinterp

#endif  // SERVICES_MODEL_PASS_PLANNER_H_
