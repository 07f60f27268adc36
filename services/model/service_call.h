#ifndef SERVICES_MODEL_SERVICE_CALL_H_
#define SERVICES_MODEL_SERVICE_CALL_H_

#include <functional>

#include "grpcpp/server_context.h"
#include "services/model/model_service.h"
#include "services/model/response_building.h"

namespace mechinterp {

// One RPC that uses the engine: where it runs, when it began, whether the client
// still waits. Lives as long as its handler.
struct ModelService::Call {
  Call(Scheduler& scheduler, grpc::ServerContext& server_context)
      : is_cancelled([&server_context] { return server_context.IsCancelled(); }),
        request(scheduler, is_cancelled),
        context{request, is_cancelled, absl::ZeroDuration()},
        start(absl::Now()) {}

  v1::RunTimings Timings() const { return BuildTimings(context.waited, absl::Now() - start); }

  const std::function<bool()> is_cancelled;
  Scheduler::Request request;  // to be admitted once the RPC is known to be good
  engine::RunContext context;
  absl::Time start;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SERVICE_CALL_H_
