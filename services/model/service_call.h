#ifndef SERVICES_MODEL_SERVICE_CALL_H_
#define SERVICES_MODEL_SERVICE_CALL_H_

#include <optional>

#include "grpcpp/server_context.h"
#include "services/model/model_service.h"
#include "services/model/response_building.h"

namespace mechinterp {

// One RPC that uses the engine: where it runs, when it began, whether the client
// still waits. Lives as long as its handler.
struct ModelService::Call {
  Call(Scheduler& scheduler, grpc::ServerContext& server_context)
      : scheduler(scheduler),
        context{scheduler, [&server_context] { return server_context.IsCancelled(); }, absl::ZeroDuration()},
        start(absl::Now()) {}

  // Asks to be let in; to be called once the request is known to be good.
  absl::Status Admit() {
    absl::StatusOr<Scheduler::Admission> admitted = scheduler.Admit();
    if (!admitted.ok()) return admitted.status();
    admission.emplace(*std::move(admitted));
    return absl::OkStatus();
  }
  v1::RunTimings Timings() const { return BuildTimings(context.waited, absl::Now() - start); }

  Scheduler& scheduler;
  engine::RunContext context;
  absl::Time start;
  std::optional<Scheduler::Admission> admission;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SERVICE_CALL_H_
