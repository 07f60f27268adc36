#ifndef SERVICES_MODEL_SERVICE_CALL_H_
#define SERVICES_MODEL_SERVICE_CALL_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/support/sync_stream.h"
#include "services/engine/interventions/plan_compiler.h"
#include "services/model/served_model.h"

namespace mechinterp {

// One RPC that uses the engine: where it runs, when it began, whether the client
// still waits. Lives as long as its handler, in the handler's thread.
struct ServiceCall {
  // `client_is_gone` (null: never) is asked while the request waits and runs.
  ServiceCall(ServedModel& served_model, std::function<bool()> client_is_gone);

  // Admits the request with so much memory, which it keeps to its end. Fails while the
  // device's last check did (see DeviceCheck), and as MemoryBudget and Scheduler do.
  absl::Status Admit(int64_t bytes);
  // The same whatever the device's check said.
  absl::Status AdmitUnchecked(int64_t bytes);
  // Admits the request, with `run_bytes` and what its plans take (RequestBytes), makes the runs that its
  // edits read and returns the plans. The compiler's violations must have been looked at.
  absl::StatusOr<std::vector<std::shared_ptr<const engine::HookPlan>>> AdmitAndCompile(
      const engine::PlanCompiler& compiler, int64_t run_bytes);

  v1::RunTimings Timings() const;

  const std::function<bool()> is_cancelled;
  ServedModel& served;
  std::string owner;  // of what the client stores; empty: everybody's (ActivationStore)
  MemoryBudget::Reservation memory;
  Scheduler::Request request;  // to be admitted once the RPC is known to be good
  engine::RunContext context;
  const absl::Time start;
};

// Writes a message of a stream; CANCELLED when nobody reads it any longer.
template <typename Message>
absl::Status WriteTo(grpc::ServerWriter<Message>& writer, const Message& message) {
  return writer.Write(message) ? absl::OkStatus()
                               : absl::CancelledError("the client no longer reads the stream");
}

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SERVICE_CALL_H_
