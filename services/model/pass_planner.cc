#include "services/model/pass_planner.h"

#include <algorithm>
#include <map>

namespace mechinterp {
namespace {

class Planner {
 public:
  Planner(absl::Span<const PendingRun* const> runs, const PassLimits& limits,
          absl::Span<const RunShare> shares)
      : runs_(runs), limits_(limits), shares_(shares), next_(runs.size(), 0) {}

  std::vector<PassPiece> Plan() {
    std::vector<int> wanting;
    for (size_t run = 0; run < runs_.size(); ++run) {
      if (SkipDecodes(static_cast<int>(run))) wanting.push_back(static_cast<int>(run));
    }
    const int reserved = wanting.empty() ? 0 : std::max(1, limits_.max_rows / 4);
    left_ = std::max(1, limits_.max_rows - reserved);
    TakeDecodes();
    left_ += reserved;
    if (!pieces_.empty()) {
      left_ =
          std::min(left_, limits_.rows_beside_decodes > 0 ? limits_.rows_beside_decodes : limits_.chunk_rows);
    }
    while (left_ > 0 && !wanting.empty()) wanting = TakeShares(wanting);
    return std::move(pieces_);
  }

 private:
  const PendingSegment& Next(int run) const { return (*runs_[run])[next_[run]]; }

  // Moves on to the run's next segment that is no decoding step; false if none.
  bool SkipDecodes(int run) {
    const PendingRun& segments = *runs_[run];
    while (next_[run] < segments.size() && segments[next_[run]].kind == RowKind::kDecode) ++next_[run];
    return next_[run] < segments.size();
  }

  void Take(int run, size_t segment, int rows) {
    pieces_.push_back({run, static_cast<int>(segment), rows});
    left_ -= rows;
  }

  void TakeDecodes() {
    for (size_t run = 0; run < runs_.size(); ++run) {
      for (size_t i = 0; i < runs_[run]->size(); ++i) {
        const PendingSegment& segment = (*runs_[run])[i];
        if (segment.kind == RowKind::kDecode && segment.rows <= left_) {
          Take(static_cast<int>(run), i, segment.rows);
        }
      }
    }
  }

  // What is left, divided among clients by weight, and a client's part among its runs.
  std::vector<int> DivideAmong(const std::vector<int>& wanting) const {
    if (shares_.empty()) return std::vector<int>(wanting.size(), left_ / static_cast<int>(wanting.size()));
    std::map<int, int> runs_of;  // by client
    double weights = 0;
    for (const int run : wanting) {
      if (++runs_of[shares_[run].client] == 1) weights += shares_[run].weight;
    }
    std::vector<int> rows;
    for (const int run : wanting) {
      const RunShare& share = shares_[run];
      rows.push_back(static_cast<int>(left_ * share.weight / weights / runs_of[share.client]));
    }
    return rows;
  }

  // Gives each of the runs its share of what is left. Returns those that want
  // more and were not kept from it by what is left.
  std::vector<int> TakeShares(const std::vector<int>& wanting) {
    const std::vector<int> rows_of = DivideAmong(wanting);
    std::vector<int> want_more;
    for (size_t i = 0; i < wanting.size(); ++i) {
      const int run = wanting[i], share = rows_of[i];
      int taken = 0;
      bool has_room = true, has_more = true;
      while (has_more) {
        const int rows = PieceRows(Next(run), share - taken);
        if (taken > 0 && taken + rows > share) break;
        has_room = rows <= left_ || is_rest_empty_;
        if (!has_room) break;
        Take(run, next_[run]++, rows);
        is_rest_empty_ = false;
        taken += rows;
        has_more = SkipDecodes(run);
      }
      if (has_room && has_more) want_more.push_back(run);
    }
    return want_more;
  }

  // Rows to take of the segment, given its run's share, `wanted`.
  int PieceRows(const PendingSegment& segment, int wanted) const {
    // Patched runs are short; only what is longer than a chunk is worth a split.
    const bool is_whole =
        !segment.can_split || (segment.kind == RowKind::kSweep && segment.rows <= limits_.chunk_rows);
    if (is_whole) return segment.rows;
    // Nor are slivers: at least a quarter of a chunk, or all remaining rows.
    const int least = std::max(1, limits_.chunk_rows / 4);
    const int rows = std::min({segment.rows, limits_.chunk_rows, std::max(wanted, least)});
    return std::min(rows, std::max(left_, 1));
  }

  const absl::Span<const PendingRun* const> runs_;
  const PassLimits& limits_;
  const absl::Span<const RunShare> shares_;
  std::vector<size_t> next_;  // segment of each run to look at
  std::vector<PassPiece> pieces_;
  bool is_rest_empty_ = true;  // no pieces but decoding steps yet
  int left_ = 0;               // rows; below zero after a segment that had to run whole
};

}  // namespace

std::vector<PassPiece> PlanPass(absl::Span<const PendingRun* const> runs, const PassLimits& limits,
                                absl::Span<const RunShare> shares) {
  return Planner(runs, limits, shares).Plan();
}

}  // namespace mechinterp
