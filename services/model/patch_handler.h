#ifndef SERVICES_MODEL_PATCH_HANDLER_H_
#define SERVICES_MODEL_PATCH_HANDLER_H_

#include "absl/status/status.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/service_call.h"

namespace mechinterp {

// RunWithPatch: compares a prompt's clean and patched runs.
absl::Status HandleRunWithPatch(ServiceCall& call, const v1::RunWithPatchRequest& request,
                                v1::RunWithPatchResponse& response);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_PATCH_HANDLER_H_
