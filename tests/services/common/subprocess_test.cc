#include "services/common/subprocess.h"

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

SubprocessLimits Within(absl::Duration time) {
  SubprocessLimits limits;
  limits.time = time;
  return limits;
}

TEST(RunSubprocess, GivesInputAndReturnsOutputAndExitCode) {
  const std::string input(300'000, 'x');  // more than a pipe holds
  const auto result = RunSubprocess({"sh", "-c", "cat; echo lost >&2; exit 3"}, input, {});
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->output, input);
  EXPECT_EQ(result->exit_code, 3);
}

TEST(RunSubprocess, IsNotHarmedByAProgramThatReadsNothing) {
  const auto result = RunSubprocess({"true"}, std::string(300'000, 'x'), {});
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->exit_code, 0);
}

TEST(RunSubprocess, EndsProgramsThatTakeTooLong) {
  for (const char* script : {"sleep 60", "exec >&-; sleep 60", "sleep 60 & wait"}) {
    const absl::Time start = absl::Now();
    EXPECT_TRUE(absl::IsDeadlineExceeded(
        RunSubprocess({"sh", "-c", script}, "", Within(absl::Milliseconds(200))).status()))
        << script;
    EXPECT_LT(absl::Now() - start, absl::Seconds(20)) << script;
  }
}

TEST(RunSubprocess, EndsProgramsThatWriteTooMuch) {
  SubprocessLimits limits;
  limits.output_bytes = 1000;
  EXPECT_TRUE(absl::IsResourceExhausted(
      RunSubprocess({"sh", "-c", "while true; do echo x; done"}, "", limits).status()));
}

TEST(RunSubprocess, TellsAMissingProgramAndASignal) {
  EXPECT_TRUE(absl::IsNotFound(RunSubprocess({"no-such-program"}, "", {}).status()));
  EXPECT_TRUE(absl::IsAborted(RunSubprocess({"sh", "-c", "kill -9 $$"}, "", {}).status()));
}

}  // namespace
}  // namespace mechinterp
