#ifndef SERVICES_MODEL_SERVICE_CALL_H_
#define SERVICES_MODEL_SERVICE_CALL_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mechinterp/v1/hook.pb.h"
#include "services/engine/interventions/plan_compiler.h"
#include "services/model/served_model.h"
#include "services/rpc/call.h"

namespace mechinterp {

// One RPC that uses the engine: where it runs, when it began, whether the client
// still waits. Lives as long as its handler, in the handler's thread.
struct ServiceCall {
  // For a client's call, which must outlive it.
  ServiceCall(ServedModel& served_model, Call& rpc);
  // For nobody's. `is_over` (null: never) is asked while the request waits and runs.
  ServiceCall(ServedModel& served_model, std::function<bool()> is_over);

  // Admits the request with so much memory, which it keeps to its end. Fails while the
  // device's last check did (see DeviceCheck), and as MemoryBudget and Scheduler do.
  absl::Status Admit(int64_t bytes);
  // The same whatever the device's check said.
  absl::Status AdmitUnchecked(int64_t bytes);
  // Admits the request, with `run_bytes` and what its plans take (RequestBytes), makes the runs that its
  // edits read and returns the plans. The compiler's violations must have been looked at.
  absl::StatusOr<std::vector<std::shared_ptr<const engine::HookPlan>>> AdmitAndCompile(
      const engine::PlanCompiler& compiler, int64_t run_bytes);

  // Reserves what reading the request takes, until the call ends; little is not worth it. As
  // MemoryBudget::Reserve.
  absl::Status HoldForParsing(int64_t bytes);
  // What the compiler makes of a set of edits, about.
  int64_t PlanBytes(const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions) const;
  // HoldForParsing, for edits that are compiled for each of so many prompts. InvalidArgument where that takes
  // more than the activations that a request may record.
  absl::Status HoldForPlans(const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
                            int prompts);

  // Whose the things are that this client stores; empty: everybody's (ActivationStore).
  std::string owner() const { return rpc == nullptr ? "" : rpc->caller().owner(); }

  // When the request came.
  absl::Time arrival() const { return rpc == nullptr ? start : rpc->arrival(); }

  // What the log tells of the request.
  void CountPrompt(const engine::TokenizedPrompt& prompt, int tokens);
  void CountNewTokens(int tokens);

  v1::RunTimings Timings() const;

  ~ServiceCall();

  Call* const rpc;  // null: nobody's
  const std::function<bool()> is_cancelled;
  ServedModel& served;
  MemoryBudget::Reservation memory;
  MemoryBudget::Reservation parsing_memory;
  Scheduler::Request request;  // to be admitted once the RPC is known to be good
  engine::RunContext context;
  const absl::Time start;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SERVICE_CALL_H_
