#ifndef SERVICES_MODEL_SERVICE_CALL_H_
#define SERVICES_MODEL_SERVICE_CALL_H_

#include <functional>

#include "grpcpp/server_context.h"
#include "services/common/status_macros.h"
#include "services/model/model_service.h"
#include "services/model/response_building.h"

namespace mechinterp {

// One RPC that uses the engine: where it runs, when it began, whether the client
// still waits. Lives as long as its handler.
struct ModelService::Call {
  Call(Scheduler& scheduler, MemoryBudget& memory_budget, grpc::ServerContext& server_context)
      : is_cancelled([&server_context] { return server_context.IsCancelled(); }),
        budget(memory_budget),
        request(scheduler, is_cancelled),
        context{request, is_cancelled, absl::ZeroDuration()},
        start(absl::Now()) {}

  // Lets the request in, with so much memory, which it keeps to its end.
  absl::Status Admit(int64_t bytes) {
    ABSTRACT_ASSIGN_OR_RETURN(memory, budget.Reserve(bytes));
    return request.Admit();
  }

  v1::RunTimings Timings() const { return BuildTimings(context.waited, absl::Now() - start); }

  const std::function<bool()> is_cancelled;
  MemoryBudget& budget;
  MemoryBudget::Reservation memory;
  Scheduler::Request request;  // to be admitted once the RPC is known to be good
  engine::RunContext context;
  absl::Time start;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SERVICE_CALL_H_
