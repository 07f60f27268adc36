#include "services/model/model_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "services/common/paging.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/engine/forward/memory_use.h"
#include "services/engine/operations/self_check.h"
#include "services/model/attribution_handler.h"
#include "services/model/cache_handler.h"
#include "services/model/circuit_handler.h"
#include "services/model/generate_handler.h"
#include "services/model/list_handler.h"
#include "services/model/patch_handler.h"
#include "services/model/readout_handler.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"
#include "services/model/service_call.h"
#include "services/model/sweep_handler.h"

namespace mechinterp {
namespace {

// What a token adds to a TokenizeResponse.
size_t TokenBytes(engine::TokenId id, const std::string& piece) {
  using google::protobuf::io::CodedOutputStream;
  constexpr size_t kTag = 1;
  return CodedOutputStream::VarintSize32(static_cast<uint32_t>(id)) + kTag +
         CodedOutputStream::VarintSize32(static_cast<uint32_t>(piece.size())) + piece.size();
}

absl::Status TooLongAnAnswer(absl::string_view field) {
  Violations violations;
  violations.Add(field, absl::StrCat("the answer would take more than the ", kMaxMessageBytes,
                                     " bytes that a message may have; cut it"));
  return ToStatus(violations);
}

}  // namespace

grpc::Status ModelService::GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                                    v1::GetModelResponse* response) {
  *response = BuildModelResponse(*served_.model, served_.device_check.passed_id());
  const engine::MemoryUse use = engine::CurrentMemoryUse();
  const std::pair<v1::MemoryPart, int64_t> parts[] = {
      {v1::MEMORY_PART_ACTIVATIONS, served_.store.memory_bytes()},
      {v1::MEMORY_PART_KEY_VALUE_CACHE, use.key_value_caches},
      {v1::MEMORY_PART_SCRATCH, use.scratch},
  };
  for (const auto& [part, bytes] : parts) {
    if (bytes == 0) continue;
    v1::MemoryUsage& usage = *response->add_memory();
    usage.set_part(part);
    usage.set_byte_count(bytes);
  }
  if (served_.budget.limit_bytes() > 0) response->set_memory_limit_bytes(served_.budget.limit_bytes());
  response->set_reserved_bytes(served_.budget.reserved_bytes());
  return grpc::Status::OK;
}

grpc::Status ModelService::ListHookPoints(grpc::ServerContext*, const v1::ListHookPointsRequest* request,
                                          v1::ListHookPointsResponse* response) {
  return ToGrpcStatus(HandleListHookPoints(served_, *request, *response));
}

grpc::Status ModelService::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                    v1::TokenizeResponse* response) {
  RequestParser parser(*served_.model, served_.store);
  const engine::TokenizedPrompt prompt =
      parser.Prompt(request->prompt(), parser.violations().At("prompt"), request->omit_begin_of_text());
  if (absl::Status status = parser.status(); !status.ok()) return ToGrpcStatus(status);
  size_t bytes = 0;
  for (engine::TokenId id : prompt.ids) {
    response->add_ids(id);
    response->add_pieces(TokenText(*served_.model, id));
    bytes += TokenBytes(id, *response->pieces().rbegin());
    if (bytes > kMaxMessageBytes) return ToGrpcStatus(TooLongAnAnswer("prompt"));
  }
  if (prompt.last_instruction_position)
    response->set_last_instruction_position(*prompt.last_instruction_position);
  return grpc::Status::OK;
}

grpc::Status ModelService::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                      v1::DetokenizeResponse* response) {
  if (served_.model->tokenizer() == nullptr) {
    return ToGrpcStatus(ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                                        "this checkpoint has no tokenizer", "NO_TOKENIZER"));
  }
  RequestParser parser(*served_.model, served_.store);
  const std::vector<engine::TokenId> ids = parser.TokenIds(request->ids(), parser.violations(), "ids");
  if (absl::Status status = parser.status(); !status.ok()) return ToGrpcStatus(status);
  response->set_text(served_.model->tokenizer()->Decode(ids, request->skip_special_tokens()));
  return response->ByteSizeLong() > kMaxMessageBytes ? ToGrpcStatus(TooLongAnAnswer("ids"))
                                                     : grpc::Status::OK;
}

grpc::Status ModelService::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                    grpc::ServerWriter<v1::GenerateResponse>* writer) {
  ServiceCall call(served_, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(HandleGenerate(call, *request, *writer));
}

grpc::Status ModelService::RunWithCache(grpc::ServerContext* context, const v1::RunWithCacheRequest* request,
                                        grpc::ServerWriter<v1::RunWithCacheResponse>* writer) {
  ServiceCall call(served_, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(HandleRunWithCache(call, *request, *writer));
}

grpc::Status ModelService::RunWithPatch(grpc::ServerContext* context, const v1::RunWithPatchRequest* request,
                                        v1::RunWithPatchResponse* response) {
  ServiceCall call(served_, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(HandleRunWithPatch(call, *request, *response));
}

grpc::Status ModelService::RunAttribution(grpc::ServerContext* context,
                                          const v1::RunAttributionRequest* request,
                                          grpc::ServerWriter<v1::RunAttributionResponse>* writer) {
  ServiceCall call(served_, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(HandleRunAttribution(call, *request, *writer));
}

grpc::Status ModelService::RunCircuit(grpc::ServerContext* context, const v1::RunCircuitRequest* request,
                                      grpc::ServerWriter<v1::RunCircuitResponse>* writer) {
  ServiceCall call(served_, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(HandleRunCircuit(call, *request, *writer));
}

grpc::Status ModelService::RunReadout(grpc::ServerContext* context, const v1::RunReadoutRequest* request,
                                      grpc::ServerWriter<v1::RunReadoutResponse>* writer) {
  ServiceCall call(served_, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(HandleRunReadout(call, *request, *writer));
}

grpc::Status ModelService::RunPatchSweep(grpc::ServerContext* context,
                                         const v1::RunPatchSweepRequest* request,
                                         grpc::ServerWriter<v1::RunPatchSweepResponse>* writer) {
  ServiceCall call(served_, [context] { return context->IsCancelled(); });
  return ToGrpcStatus(HandleRunPatchSweep(call, *request, *writer));
}

grpc::Status ModelService::CheckDevice(grpc::ServerContext* context, const v1::CheckDeviceRequest*,
                                       v1::CheckDeviceResponse* response) {
  const absl::StatusOr<engine::SelfCheck> check =
      RunDeviceCheck([context] { return context->IsCancelled(); });
  if (!check.ok()) return ToGrpcStatus(check.status());
  *response = BuildDeviceCheck(*check);
  *response->mutable_model() = served_.Identity();
  return grpc::Status::OK;
}

absl::StatusOr<engine::SelfCheck> ModelService::RunDeviceCheck(std::function<bool()> is_cancelled) {
  ServiceCall call(served_, std::move(is_cancelled));
  ABSTRACT_RETURN_IF_ERROR(call.AdmitUnchecked(engine::SelfCheckBytes(*served_.model)));
  return served_.device_check.Run(call.context);
}

grpc::Status ModelService::ListActivations(grpc::ServerContext*, const v1::ListActivationsRequest* request,
                                           v1::ListActivationsResponse* response) {
  return ToGrpcStatus(HandleListActivations(served_, *request, *response));
}

grpc::Status ModelService::GetActivation(grpc::ServerContext*, const v1::GetActivationRequest* request,
                                         grpc::ServerWriter<v1::GetActivationResponse>* writer) {
  return ToGrpcStatus(HandleGetActivation(served_, *request, *writer));
}

grpc::Status ModelService::DeleteActivation(grpc::ServerContext*, const v1::DeleteActivationRequest* request,
                                            v1::DeleteActivationResponse*) {
  return ToGrpcStatus(served_.store.Delete("", request->handle()));
}

}  // namespace mechinterp
