#include "services/model/device_check.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace mechinterp {

absl::StatusOr<engine::SelfCheck> DeviceCheck::Run(engine::RunContext& context) {
  const std::lock_guard one_at_a_time(run_mutex_);
  absl::StatusOr<engine::SelfCheck> check = engine::CheckDevice(context);
  // A check that could not be made has found out nothing about the device.
  if (!check.ok()) return check;
  std::function<void(bool)> listener;
  {
    const std::lock_guard lock(mutex_);
    problem_ = check->passed ? "" : check->problem;
    if (check->passed) passed_id_ = check->id;
    listener = listener_;
  }
  if (listener) listener(check->passed);
  return check;
}

void DeviceCheck::Require() {
  const std::lock_guard lock(mutex_);
  problem_ = "it has not run yet";
}

std::string DeviceCheck::passed_id() const {
  const std::lock_guard lock(mutex_);
  return passed_id_;
}

absl::Status DeviceCheck::MayServe() const {
  const std::lock_guard lock(mutex_);
  if (problem_.empty()) return absl::OkStatus();
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("the device has not passed its check: ", problem_,
                   "; check it again with `abstract doctor`, or start the server with --device cpu"),
      "DEVICE_CHECK_FAILED");
}

void DeviceCheck::set_listener(std::function<void(bool)> listener) {
  const std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
}

}  // namespace mechinterp
