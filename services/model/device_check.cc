#include "services/model/device_check.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace mechinterp {

absl::StatusOr<engine::SelfCheck> DeviceCheck::Run(engine::RunContext& context) {
  absl::StatusOr<engine::SelfCheck> check = engine::CheckDevice(context);
  // A client that hung up has found out nothing about the device.
  if (absl::IsCancelled(check.status()) || absl::IsUnavailable(check.status())) return check;
  std::function<void(bool)> listener;
  bool may_serve;
  {
    const std::lock_guard lock(mutex_);
    problem_ = check.ok() ? check->problem : std::string(check.status().message());
    may_serve = problem_.empty();
    if (may_serve) passed_id_ = check->id;
    listener = listener_;
  }
  if (listener) listener(may_serve);
  return check;
}

void DeviceCheck::Require() {
  const std::lock_guard lock(mutex_);
  problem_ = "it is not checked yet";
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
