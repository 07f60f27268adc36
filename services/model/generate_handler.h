#ifndef SERVICES_MODEL_GENERATE_HANDLER_H_
#define SERVICES_MODEL_GENERATE_HANDLER_H_

#include "absl/status/status.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/service_call.h"

namespace mechinterp {

// Generate: streams a continuation; measures the prompt's run when asked.
absl::Status HandleGenerate(ServiceCall& call, const v1::GenerateRequest& request,
                            MessageWriter<v1::GenerateResponse>& writer);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_GENERATE_HANDLER_H_
