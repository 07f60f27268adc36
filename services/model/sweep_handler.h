#ifndef SERVICES_MODEL_SWEEP_HANDLER_H_
#define SERVICES_MODEL_SWEEP_HANDLER_H_

#include "absl/status/status.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/service_call.h"

namespace mechinterp {

// RunPatchSweep: runs a prompt for each intervention set, and streams what each does.
absl::Status HandleRunPatchSweep(ServiceCall& call, const v1::RunPatchSweepRequest& request,
                                 MessageWriter<v1::RunPatchSweepResponse>& writer);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SWEEP_HANDLER_H_
