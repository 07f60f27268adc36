#ifndef CLIENTS_LIB_RETRY_H_
#define CLIENTS_LIB_RETRY_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace mechinterp {

// How patiently a client repeats calls that failed for a passing reason.
struct RetryPolicy {
  // Attempts at a server that is UNAVAILABLE, the first included. At least 1.
  int max_attempts = 6;
  // How long in all a full server (RESOURCE_EXHAUSTED with RetryInfo) is waited
  // for.
  absl::Duration max_queue_wait = absl::Minutes(10);
  // The first wait; each further one is `multiplier` times longer, up to
  // `max_backoff`. A RetryInfo of the server's is obeyed instead.
  absl::Duration initial_backoff = absl::Milliseconds(250);
  absl::Duration max_backoff = absl::Seconds(8);
  double multiplier = 2;
  // Up to this share of a wait is added at random, so that clients that failed
  // together do not come back together. 0 for tests.
  double jitter = 0.2;
};

// Decides, for one call, whether a failed attempt is followed by another:
//
//   RetryLoop loop(policy, sleep);
//   do { status = Attempt(); } while (loop.ShouldRetry(status));
//
// Not thread-safe; one per call.
class RetryLoop {
 public:
  RetryLoop(const RetryPolicy& policy, std::function<void(absl::Duration)> sleep);

  // Sleeps and returns true when `status` is UNAVAILABLE, or RESOURCE_EXHAUSTED
  // with a RetryInfo (without one it is a limit that waiting does not lift),
  // and patience is left. False at once otherwise, OK included.
  bool ShouldRetry(const absl::Status& status);

 private:
  absl::Duration NextDelay(const absl::Status& status);

  RetryPolicy policy_;
  std::function<void(absl::Duration)> sleep_;
  int attempts_ = 0;
  absl::Duration backoff_;
  absl::Duration queue_wait_ = absl::ZeroDuration();
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_RETRY_H_
