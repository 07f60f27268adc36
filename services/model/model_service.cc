#include "services/model/model_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/engine/forward/memory_use.h"
#include "services/engine/interventions/hook_point.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/memory_estimate.h"
#include "services/engine/weights/pass_scratch.h"
#include "services/model/response_building.h"
#include "services/model/service_call.h"

namespace mechinterp {

ModelService::ModelService(std::shared_ptr<const engine::Model> model, const ModelServiceOptions& options,
                           ModelMetrics& metrics)
    : model_(std::move(model)),
      options_(options),
      metrics_(metrics),
      store_(options.max_stored_bytes, metrics),
      budget_(
          options.memory_limit_bytes,
          model_->total_weight_bytes() +
              engine::ScratchBytes(model_->config(), options.scheduler.max_batch_rows),
          [this] { return store_.total_bytes(); },
          [this](int64_t reserved) { metrics_.SetReserved(reserved); }),
      scheduler_(model_, options.scheduler, metrics) {
  metrics_.SetModel(*model_);
}

grpc::Status ModelService::GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                                    v1::GetModelResponse* response) {
  *response = BuildModelResponse(*model_, device_check_.passed_id());
  const engine::MemoryUse use = engine::CurrentMemoryUse();
  const std::pair<v1::MemoryPart, int64_t> parts[] = {
      {v1::MEMORY_PART_ACTIVATIONS, store_.total_bytes()},
      {v1::MEMORY_PART_KEY_VALUE_CACHE, use.key_value_caches},
      {v1::MEMORY_PART_SCRATCH, use.scratch},
  };
  for (const auto& [part, bytes] : parts) {
    if (bytes == 0) continue;
    v1::MemoryUsage& usage = *response->add_memory();
    usage.set_part(part);
    usage.set_byte_count(bytes);
  }
  if (budget_.limit_bytes() > 0) response->set_memory_limit_bytes(budget_.limit_bytes());
  response->set_reserved_bytes(budget_.reserved_bytes());
  return grpc::Status::OK;
}

grpc::Status ModelService::ListHookPoints(grpc::ServerContext*, const v1::ListHookPointsRequest* request,
                                          v1::ListHookPointsResponse* response) {
  const std::string pattern = request->name_pattern().empty() ? "*" : request->name_pattern();
  for (const engine::HookSite& site : engine::MatchingSites(pattern, model_->config())) {
    *response->add_hook_points() = BuildHookPointInfo(site, model_->config());
  }
  return grpc::Status::OK;
}

grpc::Status ModelService::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                    v1::TokenizeResponse* response) {
  RequestParser parser(*model_, store_);
  const engine::TokenizedPrompt prompt =
      parser.Prompt(request->prompt(), parser.violations().At("prompt"), request->omit_begin_of_text());
  if (absl::Status status = parser.status(); !status.ok()) return ToGrpcStatus(status);
  for (engine::TokenId id : prompt.ids) {
    response->add_ids(id);
    response->add_pieces(TokenText(*model_, id));
  }
  if (prompt.last_instruction_position)
    response->set_last_instruction_position(*prompt.last_instruction_position);
  return grpc::Status::OK;
}

grpc::Status ModelService::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                      v1::DetokenizeResponse* response) {
  if (model_->tokenizer() == nullptr) {
    return ToGrpcStatus(ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                                        "this checkpoint has no tokenizer", "NO_TOKENIZER"));
  }
  RequestParser parser(*model_, store_);
  const std::vector<engine::TokenId> ids = parser.TokenIds(request->ids(), parser.violations(), "ids");
  if (absl::Status status = parser.status(); !status.ok()) return ToGrpcStatus(status);
  response->set_text(model_->tokenizer()->Decode(ids, request->skip_special_tokens()));
  return grpc::Status::OK;
}

grpc::Status ModelService::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                    grpc::ServerWriter<v1::GenerateResponse>* writer) {
  Call call(*this, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(DoGenerate(call, *request, *writer));
}

grpc::Status ModelService::RunWithCache(grpc::ServerContext* context, const v1::RunWithCacheRequest* request,
                                        grpc::ServerWriter<v1::RunWithCacheResponse>* writer) {
  Call call(*this, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(DoRunWithCache(call, *request, *writer));
}

grpc::Status ModelService::RunWithPatch(grpc::ServerContext* context, const v1::RunWithPatchRequest* request,
                                        v1::RunWithPatchResponse* response) {
  Call call(*this, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(DoRunWithPatch(call, *request, *response));
}

grpc::Status ModelService::RunPatchSweep(grpc::ServerContext* context,
                                         const v1::RunPatchSweepRequest* request,
                                         grpc::ServerWriter<v1::RunPatchSweepResponse>* writer) {
  Call call(*this, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(DoRunPatchSweep(call, *request, *writer));
}

grpc::Status ModelService::CheckDevice(grpc::ServerContext* context, const v1::CheckDeviceRequest*,
                                       v1::CheckDeviceResponse* response) {
  const absl::StatusOr<engine::SelfCheck> check =
      RunDeviceCheck([context] { return context->IsCancelled(); });
  if (!check.ok()) return ToGrpcStatus(check.status());
  *response = BuildDeviceCheck(*check);
  *response->mutable_model() = Identity();
  return grpc::Status::OK;
}

v1::ModelIdentity ModelService::Identity() const { return BuildIdentity(*model_, device_check_.passed_id()); }

absl::StatusOr<engine::SelfCheck> ModelService::RunDeviceCheck(std::function<bool()> is_cancelled) {
  Call call(*this, std::move(is_cancelled));
  ABSTRACT_RETURN_IF_ERROR(call.AdmitUnchecked(engine::SelfCheckBytes(*model_)));
  return device_check_.Run(call.context);
}

grpc::Status ModelService::ListActivations(grpc::ServerContext*, const v1::ListActivationsRequest*,
                                           v1::ListActivationsResponse* response) {
  for (const ActivationStore::Entry& entry : store_.List()) {
    *response->add_runs() = BuildStoredRun(model_->config(), entry);
  }
  return grpc::Status::OK;
}

grpc::Status ModelService::GetActivation(grpc::ServerContext*, const v1::GetActivationRequest* request,
                                         grpc::ServerWriter<v1::GetActivationResponse>* writer) {
  const absl::StatusOr<ActivationStore::Entry> entry = store_.Get(request->handle());
  if (!entry.ok()) return ToGrpcStatus(entry.status());
  v1::GetActivationResponse message;
  *message.mutable_header() = BuildActivationHeader(*model_, device_check_.passed_id(), *entry->run);
  writer->Write(message);
  ForEachChunk(model_->config(), *entry->run, [&](v1::ActivationChunk chunk) {
    v1::GetActivationResponse part;
    *part.mutable_chunk() = std::move(chunk);
    return writer->Write(part);
  });
  message.mutable_summary()->set_handle(entry->handle);
  message.mutable_summary()->set_total_byte_count(entry->bytes);
  writer->Write(message);
  return grpc::Status::OK;
}

grpc::Status ModelService::DeleteActivation(grpc::ServerContext*, const v1::DeleteActivationRequest* request,
                                            v1::DeleteActivationResponse*) {
  return ToGrpcStatus(store_.Delete(request->handle()));
}

}  // namespace mechinterp
