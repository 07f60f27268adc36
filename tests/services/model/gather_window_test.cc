#include "services/model/gather_window.h"

#include <gtest/gtest.h>

namespace mechinterp {
namespace {

const absl::Time kEnd = absl::FromUnixSeconds(1000);
const GatherOptions kOptions{0.1, absl::Milliseconds(10)};

TEST(GatherWindow, AnIdleEngineStartsAtOnce) {
  EXPECT_EQ(GatherWindow(kOptions).Remaining(kEnd), absl::ZeroDuration());
}

TEST(GatherWindow, ASingleClientIsNeverHeldUp) {
  GatherWindow window(kOptions);
  window.PassEnded(kEnd, absl::Milliseconds(60), {7});
  window.Settle(7);
  EXPECT_EQ(window.Remaining(kEnd + absl::Microseconds(1)), absl::ZeroDuration());
}

TEST(GatherWindow, WaitsUntilAllOfTheLastPassAreBackOrGone) {
  GatherWindow window(kOptions);
  window.PassEnded(kEnd, absl::Milliseconds(60), {1, 2, 3});
  window.Settle(2);
  window.Settle(9);  // was not in it
  EXPECT_EQ(window.Remaining(kEnd + absl::Milliseconds(1)), absl::Milliseconds(5));
  window.Settle(1);
  window.Settle(3);
  EXPECT_EQ(window.Remaining(kEnd + absl::Milliseconds(2)), absl::ZeroDuration());
}

TEST(GatherWindow, WaitsAtMostAShareOfTheLastPass) {
  GatherWindow window(kOptions);
  window.PassEnded(kEnd, absl::Milliseconds(20), {1, 2});
  EXPECT_EQ(window.Remaining(kEnd), absl::Milliseconds(2));
  EXPECT_EQ(window.Remaining(kEnd + absl::Milliseconds(2)), absl::ZeroDuration());
  EXPECT_EQ(window.Remaining(kEnd + absl::Seconds(5)), absl::ZeroDuration());
}

TEST(GatherWindow, AndNeverLongerThanItsLimit) {
  GatherWindow window(kOptions);
  window.PassEnded(kEnd, absl::Seconds(30), {1, 2});
  EXPECT_EQ(window.Remaining(kEnd), absl::Milliseconds(10));
  EXPECT_EQ(window.Remaining(kEnd - absl::Hours(1)), absl::Milliseconds(10)) << "a clock set back";
}

TEST(GatherWindow, ForgetsWhoDidNotComeBack) {
  GatherWindow window(kOptions);
  window.PassEnded(kEnd, absl::Milliseconds(60), {1, 2});
  window.PassEnded(kEnd + absl::Seconds(1), absl::Milliseconds(60), {1});
  window.Settle(1);
  EXPECT_EQ(window.Remaining(kEnd + absl::Seconds(1)), absl::ZeroDuration());
}

}  // namespace
}  // namespace mechinterp
