#ifndef SERVICES_MODEL_ATTRIBUTION_HANDLER_H_
#define SERVICES_MODEL_ATTRIBUTION_HANDLER_H_

#include "services/model/service_call.h"

namespace mechinterp {

absl::Status HandleRunAttribution(ServiceCall& call, const v1::RunAttributionRequest& request,
                                  MessageWriter<v1::RunAttributionResponse>& writer);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_ATTRIBUTION_HANDLER_H_
