#ifndef CLIENTS_LIB_STALL_GUARD_H_
#define CLIENTS_LIB_STALL_GUARD_H_

#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"

namespace mechinterp {

// Cancels a call whose stream has been silent for too long. A stream may last for
// hours, so a deadline for the whole of it would say nothing. One for each call;
// Progressed from any thread; `context` must outlive it.
class StallGuard {
 public:
  StallGuard(grpc::ClientContext& context, absl::Duration patience);
  ~StallGuard();

  // A message came.
  void Progressed();
  // The call's status, made DEADLINE_EXCEEDED if it was cancelled for its silence.
  absl::Status Judge(const absl::Status& status);

 private:
  void Watch();

  grpc::ClientContext& context_;
  const absl::Duration patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  absl::Time last_progress_;
  bool ended_ = false;
  bool stalled_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_STALL_GUARD_H_
