#ifndef SERVICES_MODEL_READOUT_HANDLER_H_
#define SERVICES_MODEL_READOUT_HANDLER_H_

#include "services/model/service_call.h"

namespace mechinterp {

absl::Status HandleRunReadout(ServiceCall& call, const v1::RunReadoutRequest& request,
                              MessageWriter<v1::RunReadoutResponse>& writer);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_READOUT_HANDLER_H_
