#ifndef CLIENTS_LIB_SCRAPE_WATCH_H_
#define CLIENTS_LIB_SCRAPE_WATCH_H_

#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

namespace mechinterp {

// Prometheus looks at a command's metrics every few seconds, and what an experiment finds is known at its
// end. This lets the last look come before the command goes. Thread-safe.
class ScrapeWatch {
 public:
  // Somebody begins to look.
  void OnScrape(absl::Time now);
  // Waits until somebody has begun to look once more, where somebody looks: half as long again as he lets
  // pass between two looks, and `most` at most. Returns at once where nobody has looked so far.
  void AwaitOneMore(absl::Duration most);
  bool HasAny() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
  absl::Time last_;
  absl::Duration interval_ = absl::InfiniteDuration();
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_SCRAPE_WATCH_H_
