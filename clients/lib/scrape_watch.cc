#include "clients/lib/scrape_watch.h"

#include <algorithm>

namespace mechinterp {

void ScrapeWatch::OnScrape(absl::Time now) {
  const std::lock_guard lock(mutex_);
  if (count_++ > 0) interval_ = std::max(absl::ZeroDuration(), now - last_);
  last_ = now;
  changed_.notify_all();
}

void ScrapeWatch::AwaitOneMore(absl::Duration most) {
  std::unique_lock lock(mutex_);
  if (count_ == 0) return;
  const int seen = count_;
  changed_.wait_for(lock, absl::ToChronoNanoseconds(std::min(most, interval_ * 1.5)),
                    [&] { return count_ > seen; });
}

bool ScrapeWatch::HasAny() const {
  const std::lock_guard lock(mutex_);
  return count_ > 0;
}

}  // namespace mechinterp
