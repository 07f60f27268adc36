#include "clients/lib/retry.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/status.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

RetryPolicy Policy() {
  RetryPolicy policy;
  policy.max_attempts = 5;
  policy.initial_backoff = absl::Milliseconds(100);
  policy.max_backoff = absl::Milliseconds(300);
  policy.max_queue_wait = absl::Seconds(10);
  policy.jitter = 0;
  return policy;
}

// How often, and after which waits, calls that always end like this are made.
struct Outcome {
  int attempts = 0;
  std::vector<absl::Duration> waits;
};

Outcome CallUntilDone(const absl::Status& status, const RetryPolicy& policy = Policy()) {
  Outcome outcome;
  RetryLoop loop(policy, [&](absl::Duration wait) { outcome.waits.push_back(wait); });
  do {
    ++outcome.attempts;
  } while (loop.ShouldRetry(status));
  return outcome;
}

TEST(RetryLoop, BacksOffExponentiallyWhileUnavailable) {
  const Outcome outcome = CallUntilDone(absl::UnavailableError("down"));
  EXPECT_EQ(outcome.attempts, 5);
  EXPECT_THAT(outcome.waits, ElementsAre(absl::Milliseconds(100), absl::Milliseconds(200),
                                         absl::Milliseconds(300), absl::Milliseconds(300)));
}

TEST(RetryLoop, ObeysTheServersDelayWhenFull) {
  const Outcome outcome = CallUntilDone(TryAgainLater("full", "QUEUE_FULL", absl::Seconds(4)));
  EXPECT_THAT(outcome.waits,
              ElementsAre(absl::Seconds(4), absl::Seconds(4)));  // 12 would pass max_queue_wait.
}

TEST(RetryLoop, DoesNotRepeatWhatWaitingDoesNotMend) {
  for (const absl::Status& status :
       {absl::OkStatus(), absl::InvalidArgumentError(""), absl::DeadlineExceededError(""),
        absl::NotFoundError(""), absl::ResourceExhaustedError("message larger than max")}) {
    const Outcome outcome = CallUntilDone(status);
    EXPECT_EQ(outcome.attempts, 1) << status;
    EXPECT_THAT(outcome.waits, IsEmpty());
  }
}

TEST(RetryLoop, AddsAtMostTheJitter) {
  RetryPolicy policy = Policy();
  policy.jitter = 0.5;
  const Outcome outcome = CallUntilDone(absl::UnavailableError("down"), policy);
  ASSERT_EQ(outcome.waits.size(), 4u);
  EXPECT_GE(outcome.waits[0], absl::Milliseconds(100));
  EXPECT_LE(outcome.waits[0], absl::Milliseconds(150));
}

}  // namespace
}  // namespace mechinterp
