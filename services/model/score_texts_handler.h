#ifndef SERVICES_MODEL_SCORE_TEXTS_HANDLER_H_
#define SERVICES_MODEL_SCORE_TEXTS_HANDLER_H_

#include "absl/status/status.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/service_call.h"

namespace mechinterp {

absl::Status HandleScoreTexts(ServiceCall& call, const v1::ScoreTextsRequest& request,
                              MessageWriter<v1::ScoreTextsResponse>& writer);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SCORE_TEXTS_HANDLER_H_
