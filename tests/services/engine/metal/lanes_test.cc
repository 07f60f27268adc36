#include "tests/services/engine/metal/lanes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace metal_shim {
namespace {

TEST(Lanes, EveryThreadOfEveryThreadgroupRunsOnce) {
  std::vector<int> runs(3 * 2 * 64);
  EXPECT_EQ(Dispatch(3, 2, 64,
                     [&](const ThreadPosition& at) {
                       ++runs[((at.group[1] * 3 + at.group[0]) * 2 + at.simdgroup) * 32 + at.lane];
                     }),
            "");
  EXPECT_THAT(runs, testing::Each(1));
}

TEST(Lanes, ASimdgroupExchangesAgainAndAgain) {
  std::vector<uint32_t> sums(64);
  EXPECT_EQ(Dispatch(1, 1, 64,
                     [&](const ThreadPosition& at) {
                       uint32_t value = at.simdgroup * 100 + at.lane;
                       for (int round = 0; round < 3; ++round) value = Exchange(value)[(at.lane + 1) % 32];
                       sums[at.simdgroup * 32 + at.lane] = value;
                     }),
            "");
  for (int i = 0; i < 64; ++i) EXPECT_EQ(sums[i], i / 32 * 100 + (i % 32 + 3) % 32) << i;
}

TEST(Lanes, ABarrierOrdersWhatTheSimdgroupsDo) {
  for (int repetition = 0; repetition < 20; ++repetition) {
    std::vector<int> written(64), seen(64);
    EXPECT_EQ(Dispatch(1, 1, 64,
                       [&](const ThreadPosition& at) {
                         const int i = at.simdgroup * 32 + at.lane;
                         written[i] = i + 1;
                         Barrier();
                         seen[i] = written[63 - i];
                       }),
              "");
    for (int i = 0; i < 64; ++i) ASSERT_EQ(seen[i], 64 - i);
  }
}

// What the turns' changing order is for.
TEST(Lanes, AForgottenBarrierShows) {
  bool wrong = false;
  for (int repetition = 0; repetition < 20; ++repetition) {
    std::vector<int> written(64);
    Dispatch(1, 1, 64, [&](const ThreadPosition& at) {
      const int i = at.simdgroup * 32 + at.lane;
      written[i] = i + 1;
      if (written[63 - i] == 0) wrong = true;
    });
  }
  EXPECT_TRUE(wrong);
}

TEST(Lanes, AskingALaneThatIsGoneIsAnError) {
  EXPECT_NE(Dispatch(1, 1, 32,
                     [](const ThreadPosition& at) {
                       if (at.lane < 31) Exchange(at.lane);
                     }),
            "");
}

TEST(Lanes, WaitingAtDifferentPlacesIsAnError) {
  EXPECT_NE(Dispatch(1, 1, 32,
                     [](const ThreadPosition& at) {
                       if (at.lane == 5) {
                         Barrier();
                       } else {
                         Exchange(0);
                       }
                     }),
            "");
}

}  // namespace
}  // namespace metal_shim
