#ifndef SERVICES_MODEL_MEAN_ACTIVATIONS_HANDLER_H_
#define SERVICES_MODEL_MEAN_ACTIVATIONS_HANDLER_H_

#include "absl/status/status.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/service_call.h"

namespace mechinterp {

absl::Status HandleRunMeanActivations(ServiceCall& call, const v1::RunMeanActivationsRequest& request,
                                      MessageWriter<v1::RunMeanActivationsResponse>& writer);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_MEAN_ACTIVATIONS_HANDLER_H_
