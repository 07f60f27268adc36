#include "services/model/pass_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <optional>

#include "services/model/pass_times.h"

namespace mechinterp {
namespace {

constexpr PassLimits kLimits{512, 256};

PendingSegment Decode() { return {RowKind::kDecode, 1, true, 0}; }
PendingSegment Prompt(int rows) { return {RowKind::kPrefill, rows, true, 0}; }
PendingSegment WholePrompt(int rows) { return {RowKind::kPrefill, rows, false, 0}; }
PendingRun Sweep(int count, int rows) { return PendingRun(count, {RowKind::kSweep, rows, true, 0}); }

std::vector<PassPiece> Plan(const std::vector<PendingRun>& runs, const PassLimits& limits = kLimits) {
  std::vector<const PendingRun*> pointers;
  for (const PendingRun& run : runs) pointers.push_back(&run);
  return PlanPass(pointers, limits);
}

// Rows of each run in the pass.
std::map<int, int> RowsByRun(const std::vector<PassPiece>& pieces) {
  std::map<int, int> rows;
  for (const PassPiece& piece : pieces) rows[piece.run] += piece.rows;
  return rows;
}

using Rows = std::map<int, int>;

TEST(PlanPass, OneRequestGetsEverythingAtOnce) {
  EXPECT_EQ(RowsByRun(Plan({{Decode()}})), (Rows{{0, 1}}));
  EXPECT_EQ(RowsByRun(Plan({{Prompt(100)}})), (Rows{{0, 100}}));
  EXPECT_EQ(Plan({Sweep(64, 8)}).size(), 64u);
}

TEST(PlanPass, DecodingStepsOfAllShareAPass) {
  EXPECT_EQ(Plan(std::vector<PendingRun>(32, {Decode()})).size(), 32u);
}

TEST(PlanPass, ASweepOfAThousandRowsLeavesRoomForDecoding) {
  const auto rows = RowsByRun(Plan({Sweep(200, 5), {Decode()}, {Decode()}}));
  EXPECT_EQ(rows.at(1), 1);
  EXPECT_EQ(rows.at(2), 1);
  // Fills the rest, but holds the decoding steps up for no more than a chunk.
  EXPECT_EQ(rows.at(0), 255);
}

TEST(PlanPass, WithoutDecodingASweepFillsThePass) {
  EXPECT_EQ(RowsByRun(Plan({Sweep(200, 5)})), (Rows{{0, 510}}));
}

TEST(PlanPass, DecodingLeavesAQuarterToOthers) {
  std::vector<PendingRun> runs(40, {Decode()});
  runs.push_back({Prompt(30)});
  const auto rows = RowsByRun(Plan(runs, {16, 16}));
  EXPECT_EQ(rows.at(40), 4);
  EXPECT_EQ(rows.size(), 12u + 1);
  // Who waited longest goes first among the decoding, too.
  for (int run = 0; run < 12; ++run) EXPECT_EQ(rows.at(run), 1);
}

TEST(PlanPass, LongPromptsRunInChunks) {
  EXPECT_EQ(RowsByRun(Plan({{Prompt(1000)}})), (Rows{{0, 256}}));
  EXPECT_EQ(RowsByRun(Plan({{Prompt(257)}})), (Rows{{0, 256}}));
  EXPECT_EQ(RowsByRun(Plan({{Prompt(1000)}, {Prompt(1000)}})), (Rows{{0, 256}, {1, 256}}));
}

TEST(PlanPass, TheRestIsSharedEqually) {
  EXPECT_EQ(RowsByRun(Plan({Sweep(1000, 4), Sweep(1000, 8)})), (Rows{{0, 256}, {1, 256}}));
  EXPECT_EQ(RowsByRun(Plan({{Prompt(1000)}, Sweep(1000, 8)})), (Rows{{0, 256}, {1, 256}}));
}

TEST(PlanPass, WhatSomeDoNotNeedOthersGet) {
  // 170 each: 42 x 4, 12 and 34 x 5. Then 81 each of the 162 left: 20 x 4 and 16 x 5.
  EXPECT_EQ(RowsByRun(Plan({Sweep(1000, 4), {Prompt(12)}, Sweep(1000, 5)})),
            (Rows{{0, 248}, {1, 12}, {2, 250}}));
}

TEST(PlanPass, AShortPromptJoinsTheNextPassWhateverWaits) {
  std::vector<PendingRun> runs(10, Sweep(100, 5));
  runs.push_back({Prompt(20)});
  EXPECT_EQ(RowsByRun(Plan(runs)).at(10), 20);
}

// Not all a little: chunks stay worth their while, the last in line wait.
TEST(PlanPass, ManyPromptsGoInOrder) {
  const auto rows = RowsByRun(Plan(std::vector<PendingRun>(32, {Prompt(200)})));
  EXPECT_EQ(rows, (Rows{{0, 64}, {1, 64}, {2, 64}, {3, 64}, {4, 64}, {5, 64}, {6, 64}, {7, 64}}));
}

TEST(PlanPass, WhatCannotSplitRunsWhole) {
  EXPECT_EQ(RowsByRun(Plan({{WholePrompt(400)}, {Prompt(200)}})), (Rows{{0, 400}, {1, 112}}));
  // Waits where there is no room ...
  EXPECT_EQ(RowsByRun(Plan({{Prompt(256)}, {WholePrompt(400)}})), (Rows{{0, 256}}));
  EXPECT_EQ(RowsByRun(Plan({{Prompt(100)}, {WholePrompt(400)}, {Decode()}})), (Rows{{0, 100}, {2, 1}}));
  // ... but not for ever.
  EXPECT_EQ(RowsByRun(Plan({{WholePrompt(400)}, {Prompt(100)}, {Decode()}})), (Rows{{0, 400}, {2, 1}}));
}

TEST(PlanPass, WhatIsLargerThanAPassGoesAlone) {
  EXPECT_EQ(RowsByRun(Plan({{WholePrompt(2000)}, {Prompt(200)}})), (Rows{{0, 2000}}));
}

TEST(PlanPass, PatchedRunsLongerThanAChunkAreSplit) {
  EXPECT_EQ(RowsByRun(Plan({Sweep(1, 300)})), (Rows{{0, 256}}));
  EXPECT_EQ(RowsByRun(Plan({Sweep(3, 200)})), (Rows{{0, 400}}));
}

TEST(PlanPass, TakesASegmentOnceAPass) {
  const auto pieces = Plan({{Prompt(400), Prompt(100), Prompt(50)}});
  std::map<int, int> times;
  for (const PassPiece& piece : pieces) ++times[piece.segment];
  EXPECT_EQ(times, (std::map<int, int>{{0, 1}, {1, 1}, {2, 1}}));
}

// Random mixes, run to their ends as the scheduler does, which puts who was
// served behind who was not.
TEST(PlanPass, EverybodyGetsThereAndNobodyWaitsForLong) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    srand(seed);
    PassLimits limits{8 + rand() % 600, 0};
    limits.chunk_rows = 1 + rand() % std::min(limits.max_rows, 300);
    std::vector<PendingRun> runs(1 + rand() % 12);
    for (PendingRun& run : runs) {
      const int count = 1 + rand() % 20;
      for (int i = 0; i < count; ++i) {
        const auto kind = static_cast<RowKind>(rand() % 3);
        run.push_back({kind, kind == RowKind::kDecode ? 1 : 1 + rand() % 400, rand() % 4 > 0, 0});
      }
    }
    std::vector<int> passes_without(runs.size(), 0);
    std::vector<int> order(runs.size());
    std::iota(order.begin(), order.end(), 0);
    while (!order.empty()) {
      std::vector<const PendingRun*> waiting;
      for (int run : order) waiting.push_back(&runs[run]);
      const auto pieces = PlanPass(waiting, limits);
      ASSERT_FALSE(pieces.empty());
      int total = 0, largest = 0;  // the largest may be one that had to run whole
      std::vector<int> served, rest;
      for (const PassPiece& piece : pieces) {
        PendingSegment& segment = runs[order[piece.run]][piece.segment];
        ASSERT_GT(piece.rows, 0);
        ASSERT_LE(piece.rows, segment.rows);
        if (piece.rows < segment.rows) {
          ASSERT_TRUE(segment.can_split);
        }
        segment.rows -= piece.rows;
        total += piece.rows;
        largest = std::max(largest, piece.rows);
      }
      ASSERT_LE(total - largest, limits.max_rows);
      const auto by_run = RowsByRun(pieces);
      for (size_t i = 0; i < order.size(); ++i) {
        const int run = order[i];
        const bool is_served = by_run.count(static_cast<int>(i)) > 0;
        passes_without[run] = is_served ? 0 : passes_without[run] + 1;
        ASSERT_LE(passes_without[run], 2 * static_cast<int>(runs.size())) << "seed " << seed;
        std::erase_if(runs[run], [](const PendingSegment& s) { return s.rows == 0; });
        if (!runs[run].empty()) (is_served ? served : rest).push_back(run);
      }
      order = rest;
      order.insert(order.end(), served.begin(), served.end());
    }
  }
}

Rows SharesOf(const std::vector<PendingRun>& runs, const std::vector<RunShare>& shares) {
  std::vector<const PendingRun*> pointers;
  for (const PendingRun& run : runs) pointers.push_back(&run);
  return RowsByRun(PlanPass(pointers, kLimits, shares));
}

// Three requests of one client get together what one request of another gets.
TEST(PlanPass, DividesAmongClientsNotRequests) {
  const std::vector<PendingRun> runs = {Sweep(900, 1), Sweep(900, 1), Sweep(900, 1), Sweep(900, 1)};
  const Rows rows = SharesOf(runs, {{0, 1}, {0, 1}, {0, 1}, {1, 1}});
  EXPECT_NEAR(rows.at(3), 256, 4);
  EXPECT_NEAR(rows.at(0), 85, 4);
}

TEST(PlanPass, DividesByWeight) {
  const Rows rows = SharesOf({Sweep(900, 1), Sweep(900, 1)}, {{0, 3}, {1, 1}});
  EXPECT_NEAR(rows.at(0), 384, 2);
  EXPECT_NEAR(rows.at(1), 128, 2);
}

TEST(PlanPass, GivesOthersWhatOneDoesNotWant) {
  const Rows rows = SharesOf({Sweep(10, 1), Sweep(900, 1)}, {{0, 100}, {1, 1}});
  EXPECT_EQ(rows, (Rows{{0, 10}, {1, 502}}));
}

TEST(PlanPass, HoldsWhatRunsBesideDecodingToItsBound) {
  PassLimits limits = kLimits;
  limits.rows_beside_decodes = 11;
  EXPECT_EQ(RowsByRun(Plan({{Decode()}, {Prompt(1000)}}, limits)), (Rows{{0, 1}, {1, 11}}));
  EXPECT_EQ(RowsByRun(Plan({{Prompt(1000)}}, limits)), (Rows{{0, 256}}));
}

TEST(PassTimes, TellWhatDoublesADecodingPass) {
  PassTimes times;
  EXPECT_EQ(times.RowsThatDoubleADecode(), std::nullopt);
  times.Observe(1, 0, absl::Milliseconds(30));
  EXPECT_EQ(times.RowsThatDoubleADecode(), std::nullopt);
  times.Observe(0, 256, absl::Milliseconds(768));  // 3 ms a row
  EXPECT_EQ(times.RowsThatDoubleADecode(), 10);
  times.Observe(0, 8, absl::Seconds(9));  // too few to tell
  EXPECT_EQ(times.RowsThatDoubleADecode(), 10);
  for (int i = 0; i < 200; ++i) times.Observe(2, 0, absl::Milliseconds(60));
  EXPECT_NEAR(*times.RowsThatDoubleADecode(), 20, 1);
}

}  // namespace
}  // namespace mechinterp
