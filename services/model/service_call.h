#ifndef SERVICES_MODEL_SERVICE_CALL_H_
#define SERVICES_MODEL_SERVICE_CALL_H_

#include <functional>
#include <utility>

#include "services/common/status_macros.h"
#include "services/model/model_service.h"
#include "services/model/response_building.h"

namespace mechinterp {

// One RPC that uses the engine: where it runs, when it began, whether the client
// still waits. Lives as long as its handler.
struct ModelService::Call {
  Call(ModelService& model_service, std::function<bool()> client_is_gone)
      : is_cancelled(std::move(client_is_gone)),
        service(model_service),
        request(model_service.scheduler_, is_cancelled),
        context{request, is_cancelled, absl::ZeroDuration()},
        start(absl::Now()) {}

  // Lets the request in, with so much memory, which it keeps to its end; unless the
  // device computes wrongly.
  absl::Status Admit(int64_t bytes) {
    ABSTRACT_RETURN_IF_ERROR(service.device_check_.MayServe());
    return AdmitUnchecked(bytes);
  }
  absl::Status AdmitUnchecked(int64_t bytes) {
    ABSTRACT_ASSIGN_OR_RETURN(memory, service.budget_.Reserve(bytes));
    return request.Admit();
  }

  v1::RunTimings Timings() const { return BuildTimings(context.waited, absl::Now() - start); }

  const std::function<bool()> is_cancelled;
  ModelService& service;
  MemoryBudget::Reservation memory;
  Scheduler::Request request;  // to be admitted once the RPC is known to be good
  engine::RunContext context;
  absl::Time start;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SERVICE_CALL_H_
