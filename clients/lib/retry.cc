#include "clients/lib/retry.h"

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "services/common/status.h"

namespace mechinterp {

RetryLoop::RetryLoop(const RetryPolicy& policy, std::function<void(absl::Duration)> sleep)
    : policy_(policy), sleep_(std::move(sleep)), backoff_(policy.initial_backoff) {}

bool RetryLoop::ShouldRetry(const absl::Status& status) {
  if (absl::IsUnavailable(status)) {
    if (++attempts_ >= policy_.max_attempts) return false;
    sleep_(NextDelay(status));
    return true;
  }
  if (absl::IsResourceExhausted(status) && RetryDelay(status).has_value()) {
    const absl::Duration delay = NextDelay(status);
    queue_wait_ += delay;
    if (queue_wait_ > policy_.max_queue_wait) return false;
    sleep_(delay);
    return true;
  }
  return false;
}

absl::Duration RetryLoop::NextDelay(const absl::Status& status) {
  absl::Duration delay = backoff_;
  if (const auto requested = RetryDelay(status)) {
    delay = *requested;
  } else {
    backoff_ = std::min(backoff_ * policy_.multiplier, policy_.max_backoff);
  }
  if (policy_.jitter <= 0) return delay;
  absl::BitGen random;
  return delay * (1 + absl::Uniform(random, 0.0, policy_.jitter));
}

}  // namespace mechinterp
