#ifndef SERVICES_MODEL_GATHER_WINDOW_H_
#define SERVICES_MODEL_GATHER_WINDOW_H_

#include <cstdint>
#include <set>
#include <vector>

#include "absl/time/time.h"

namespace mechinterp {

struct GatherOptions {
  // The wait, as a share of how long the last pass took, and at most.
  double share_of_pass = 0.1;
  absl::Duration at_most = absl::Milliseconds(10);
};

// When to start the next forward pass. After a pass, the requests that took part
// in it choose their tokens and come back one after another. A pass that starts
// with the first of them costs as much as one with all, for the weights are read
// once a pass: so the engine waits a moment for the others.
//
// It waits for no other requests: a single client, and the first request to an idle
// engine, are never delayed. Time is passed in: tests need not wait. Not thread-safe.
class GatherWindow {
 public:
  explicit GatherWindow(const GatherOptions& options) : options_(options) {}

  // A pass that took `took` ended at `now`; these requests are expected back.
  void PassEnded(absl::Time now, absl::Duration took, const std::vector<int64_t>& requests);
  // A request is back, or will not come.
  void Settle(int64_t request) { expected_.erase(request); }
  // How much longer to wait, at most; zero when there is nothing to wait for.
  absl::Duration Remaining(absl::Time now) const;

 private:
  const GatherOptions options_;
  std::set<int64_t> expected_;
  absl::Time deadline_ = absl::InfinitePast();
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_GATHER_WINDOW_H_
