#include "clients/lib/stall_guard.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace mechinterp {

StallGuard::StallGuard(grpc::ClientContext& context, absl::Duration patience)
    : context_(context), patience_(patience), last_progress_(absl::Now()), thread_([this] { Watch(); }) {}

StallGuard::~StallGuard() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void StallGuard::Progressed() {
  const std::lock_guard<std::mutex> lock(mutex_);
  last_progress_ = absl::Now();
}

absl::Status StallGuard::Judge(const absl::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!stalled_ || status.ok()) return status;
  return absl::DeadlineExceededError(absl::StrCat("nothing came for ", absl::FormatDuration(patience_)));
}

void StallGuard::Watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ended_) {
    const absl::Duration left = last_progress_ + patience_ - absl::Now();
    if (left <= absl::ZeroDuration()) {
      stalled_ = true;
      context_.TryCancel();
      return;
    }
    changed_.wait_for(lock, absl::ToChronoNanoseconds(left));
  }
}

}  // namespace mechinterp
