#ifndef SERVICES_MODEL_CACHE_HANDLER_H_
#define SERVICES_MODEL_CACHE_HANDLER_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/sync_stream.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/service_call.h"

namespace mechinterp {

// RunWithCache: records a run's activations, and streams or stores them.
absl::Status HandleRunWithCache(ServiceCall& call, const v1::RunWithCacheRequest& request,
                                grpc::ServerWriter<v1::RunWithCacheResponse>& writer);

// GetActivation: streams a stored run of this owner's (ActivationStore).
absl::Status HandleGetActivation(ServedModel& served, const v1::GetActivationRequest& request,
                                 grpc::ServerWriter<v1::GetActivationResponse>& writer,
                                 const std::string& owner = "");

}  // namespace mechinterp

#endif  // SERVICES_MODEL_CACHE_HANDLER_H_
