#ifndef SERVICES_MODEL_DEVICE_CHECK_H_
#define SERVICES_MODEL_DEVICE_CHECK_H_

#include <functional>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "services/engine/operations/self_check.h"

namespace mechinterp {

// What the last check of the device came to, and so whether it may serve. Before the
// first check it may, unless one is required. Thread-safe.
class DeviceCheck {
 public:
  // Runs engine::CheckDevice and remembers what it found. One at a time.
  absl::StatusOr<engine::SelfCheck> Run(engine::RunContext& context);

  // From now on until the first check passes, the device may not serve.
  void Require();

  // Names the check that passed last; empty when there was none.
  std::string passed_id() const;
  // FAILED_PRECONDITION, reason DEVICE_CHECK_FAILED, with what is wrong, while the last
  // check failed.
  absl::Status MayServe() const;

  // Told after every check whether it passed, from the thread that checked.
  void set_listener(std::function<void(bool passed)> listener);

 private:
  std::mutex run_mutex_;  // taken before mutex_
  mutable std::mutex mutex_;
  std::string passed_id_;
  std::string problem_;
  std::function<void(bool)> listener_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_DEVICE_CHECK_H_
