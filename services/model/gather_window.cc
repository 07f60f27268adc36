#include "services/model/gather_window.h"

#include <algorithm>

namespace mechinterp {

void GatherWindow::PassEnded(absl::Time now, absl::Duration took, const std::vector<int64_t>& requests) {
  expected_ = {requests.begin(), requests.end()};
  deadline_ = now + std::min(took * options_.share_of_pass, options_.at_most);
}

absl::Duration GatherWindow::Remaining(absl::Time now) const {
  if (expected_.empty()) return absl::ZeroDuration();
  // Never more than the whole window, should the clock be set back.
  return std::clamp(deadline_ - now, absl::ZeroDuration(), options_.at_most);
}

}  // namespace mechinterp
