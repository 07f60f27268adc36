#ifndef SERVICES_MODEL_CIRCUIT_HANDLER_H_
#define SERVICES_MODEL_CIRCUIT_HANDLER_H_

#include "absl/status/status.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/service_call.h"

namespace mechinterp {

absl::Status HandleRunCircuit(ServiceCall& call, const v1::RunCircuitRequest& request,
                              MessageWriter<v1::RunCircuitResponse>& writer);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_CIRCUIT_HANDLER_H_
