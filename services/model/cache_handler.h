#ifndef SERVICES_MODEL_CACHE_HANDLER_H_
#define SERVICES_MODEL_CACHE_HANDLER_H_

#include <string>

#include "absl/status/status.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/service_call.h"

namespace mechinterp {

// RunWithCache: records a run's activations, and streams or stores them.
absl::Status HandleRunWithCache(ServiceCall& call, const v1::RunWithCacheRequest& request,
                                MessageWriter<v1::RunWithCacheResponse>& writer);

// GetActivation: streams a stored run of the caller's.
absl::Status HandleGetActivation(ServedModel& served, Call& call, const v1::GetActivationRequest& request,
                                 MessageWriter<v1::GetActivationResponse>& writer);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_CACHE_HANDLER_H_
