#ifndef SERVICES_MODEL_RESPONSE_BUILDING_H_
#define SERVICES_MODEL_RESPONSE_BUILDING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/engine/interventions/sweep_grid.h"
#include "services/engine/model.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/logit_metrics.h"
#include "services/engine/operations/self_check.h"
#include "services/model/activation_store.h"

namespace mechinterp {

// From the engine's types to protobuf.

v1::HookPoint ToProto(engine::HookPoint point);
v1::HookSite BuildSite(const engine::HookSite& site);

// `self_check_id`: of the device check that passed last.
v1::ModelIdentity BuildIdentity(const engine::Model& model, const std::string& self_check_id);
v1::GetModelResponse BuildModelResponse(const engine::Model& model, const std::string& self_check_id);
v1::CheckDeviceResponse BuildDeviceCheck(const engine::SelfCheck& check);
v1::HookPointInfo BuildHookPointInfo(const engine::HookSite& site, const engine::ModelConfig& config);

// Text of one token; empty without a tokenizer.
std::string TokenText(const engine::Model& model, engine::TokenId id);
v1::TokenProbability BuildTokenProbability(const engine::Model& model, const engine::TokenProbability& token);
v1::RunMetrics BuildMetrics(const engine::Model& model, const engine::RunMetrics& metrics);
v1::Continuation BuildContinuation(const engine::Model& model, const engine::Generation& generation);
v1::SweepSite BuildSweepSite(const engine::SweepSite& site);
v1::RunTimings BuildTimings(absl::Duration queued, absl::Duration total);
google::protobuf::Timestamp BuildTimestamp(absl::Time time);

v1::StoredRun BuildStoredRun(const engine::ModelConfig& config, const ActivationStore::Entry& entry);

// What is sent of values at a site, in a shape, as elements of a type.
v1::ActivationInfo BuildActivationInfo(const engine::HookSite& site, const std::vector<int64_t>& shape,
                                       v1::DataType type = v1::DATA_TYPE_FLOAT32);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_RESPONSE_BUILDING_H_
