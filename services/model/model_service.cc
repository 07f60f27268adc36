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
#include "services/model/mean_activations_handler.h"
#include "services/model/patch_handler.h"
#include "services/model/readout_handler.h"
#include "services/model/request_limits.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"
#include "services/model/score_texts_handler.h"
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

// A handler of what runs the model, as a server calls it. `answer`: a response, or a stream's writer.
template <typename Request, typename Answer>
auto AsCall(ServedModel& served, absl::Status (*handle)(ServiceCall&, const Request&, Answer&)) {
  return [&served, handle](Call& call, const Request& request, Answer& answer) {
    ServiceCall run(served, call);
    return handle(run, request, answer);
  };
}

}  // namespace

absl::Status ModelService::GetModel(v1::GetModelResponse& response) {
  response = BuildModelResponse(*served_.model, served_.device_check.passed_id());
  const engine::MemoryUse use = engine::CurrentMemoryUse();
  const std::pair<v1::MemoryPart, int64_t> parts[] = {
      {v1::MEMORY_PART_ACTIVATIONS, served_.store.memory_bytes()},
      {v1::MEMORY_PART_KEY_VALUE_CACHE, use.key_value_caches},
      {v1::MEMORY_PART_SCRATCH, use.scratch},
  };
  for (const auto& [part, bytes] : parts) {
    if (bytes == 0) continue;
    v1::MemoryUsage& usage = *response.add_memory();
    usage.set_part(part);
    usage.set_byte_count(bytes);
  }
  if (served_.budget.limit_bytes() > 0) response.set_memory_limit_bytes(served_.budget.limit_bytes());
  response.set_reserved_bytes(served_.budget.reserved_bytes());
  return absl::OkStatus();
}

absl::Status ModelService::Tokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse& response) {
  RequestParser parser(*served_.model, served_.store);
  const engine::TokenizedPrompt prompt =
      parser.Prompt(request.prompt(), parser.violations().At("prompt"), request.omit_begin_of_text());
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  size_t bytes = 0;
  for (engine::TokenId id : prompt.ids) {
    response.add_ids(id);
    response.add_pieces(TokenText(*served_.model, id));
    bytes += TokenBytes(id, *response.pieces().rbegin());
    if (bytes > kMaxMessageBytes) return TooLongAnAnswer("prompt");
  }
  if (prompt.last_instruction_position) {
    response.set_last_instruction_position(*prompt.last_instruction_position);
  }
  return absl::OkStatus();
}

absl::Status ModelService::Detokenize(const v1::DetokenizeRequest& request,
                                      v1::DetokenizeResponse& response) {
  if (served_.model->tokenizer() == nullptr) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "this checkpoint has no tokenizer",
                           "NO_TOKENIZER");
  }
  RequestParser parser(*served_.model, served_.store);
  const std::vector<engine::TokenId> ids = parser.TokenIds(request.ids(), parser.violations(), "ids");
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  response.set_text(served_.model->tokenizer()->Decode(ids, request.skip_special_tokens()));
  return response.ByteSizeLong() > kMaxMessageBytes ? TooLongAnAnswer("ids") : absl::OkStatus();
}

absl::Status ModelService::CheckDevice(Call& call, v1::CheckDeviceResponse& response) {
  ABSTRACT_ASSIGN_OR_RETURN(const engine::SelfCheck check,
                            RunDeviceCheck([&call] { return call.IsCancelled(); }));
  response = BuildDeviceCheck(check);
  *response.mutable_model() = served_.Identity();
  return absl::OkStatus();
}

absl::StatusOr<engine::SelfCheck> ModelService::RunDeviceCheck(std::function<bool()> is_cancelled) {
  ServiceCall call(served_, std::move(is_cancelled));
  ABSTRACT_RETURN_IF_ERROR(call.AdmitUnchecked(engine::SelfCheckBytes(*served_.model)));
  return served_.device_check.Run(call.context);
}

void ModelService::AddLookups(ServiceMethods& methods) {
  const MethodTraits lookup;
  methods.AddUnary<v1::GetModelRequest, v1::GetModelResponse>(
      "GetModel", lookup, [this](Call&, const auto&, auto& response) { return GetModel(response); });
  methods.AddUnary<v1::ListHookPointsRequest, v1::ListHookPointsResponse>(
      "ListHookPoints", lookup, [this](Call&, const auto& request, auto& response) {
        return HandleListHookPoints(served_, request, response);
      });
  methods.AddUnary<v1::TokenizeRequest, v1::TokenizeResponse>(
      "Tokenize", lookup,
      [this](Call&, const auto& request, auto& response) { return Tokenize(request, response); });
  methods.AddUnary<v1::DetokenizeRequest, v1::DetokenizeResponse>(
      "Detokenize", lookup,
      [this](Call&, const auto& request, auto& response) { return Detokenize(request, response); });
}

void ModelService::AddRuns(ServiceMethods& methods) {
  const MethodTraits interactive = {Lane::kWork, Priority::kInteractive};
  const MethodTraits batch = {Lane::kWork, Priority::kBatch};
  methods.AddUnary<v1::CheckDeviceRequest, v1::CheckDeviceResponse>(
      "CheckDevice", interactive,
      [this](Call& call, const auto&, auto& response) { return CheckDevice(call, response); });
  methods.AddUnary<v1::RunWithPatchRequest, v1::RunWithPatchResponse>("RunWithPatch", interactive,
                                                                      AsCall(served_, HandleRunWithPatch));
  methods.AddStream<v1::GenerateRequest, v1::GenerateResponse>("Generate", interactive,
                                                               AsCall(served_, HandleGenerate));
  methods.AddStream<v1::RunWithCacheRequest, v1::RunWithCacheResponse>("RunWithCache", interactive,
                                                                       AsCall(served_, HandleRunWithCache));
  methods.AddStream<v1::RunReadoutRequest, v1::RunReadoutResponse>("RunReadout", batch,
                                                                   AsCall(served_, HandleRunReadout));
  methods.AddStream<v1::RunMeanActivationsRequest, v1::RunMeanActivationsResponse>(
      "RunMeanActivations", batch, AsCall(served_, HandleRunMeanActivations));
  methods.AddStream<v1::ScoreTextsRequest, v1::ScoreTextsResponse>("ScoreTexts", batch,
                                                                   AsCall(served_, HandleScoreTexts));
  methods.AddStream<v1::RunAttributionRequest, v1::RunAttributionResponse>(
      "RunAttribution", batch, AsCall(served_, HandleRunAttribution));
  methods.AddStream<v1::RunCircuitRequest, v1::RunCircuitResponse>("RunCircuit", batch,
                                                                   AsCall(served_, HandleRunCircuit));
  methods.AddStream<v1::RunPatchSweepRequest, v1::RunPatchSweepResponse>(
      "RunPatchSweep", batch, AsCall(served_, HandleRunPatchSweep));
}

void ModelService::AddStoredRuns(ServiceMethods& methods) {
  const MethodTraits read;
  const MethodTraits from_disk = {Lane::kWork};  // perhaps
  const MethodTraits write = {Lane::kLookup, Priority::kInteractive, Access::kWrite};
  methods.AddUnary<v1::ListActivationsRequest, v1::ListActivationsResponse>(
      "ListActivations", read, [this](Call& call, const auto& request, auto& response) {
        return HandleListActivations(served_, request, response, call.caller().owner());
      });
  methods.AddStream<v1::GetActivationRequest, v1::GetActivationResponse>(
      "GetActivation", from_disk, [this](Call& call, const auto& request, auto& writer) {
        return HandleGetActivation(served_, call, request, writer);
      });
  methods.AddUnary<v1::DeleteActivationRequest, v1::DeleteActivationResponse>(
      "DeleteActivation", write, [this](Call& call, const auto& request, auto&) {
        return served_.store.Delete(call.caller().owner(), request.handle());
      });
}

ServiceMethods ModelService::Methods() {
  ServiceMethods methods(v1::GetModelRequest::descriptor()->file()->FindServiceByName("ModelService"));
  methods.set_check(CheckRequestLimits);
  AddLookups(methods);
  AddRuns(methods);
  AddStoredRuns(methods);
  return methods;
}

}  // namespace mechinterp
