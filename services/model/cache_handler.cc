#include "services/model/cache_handler.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/tensor_bytes.h"
#include "services/engine/operations/cached_run.h"
#include "services/model/activation_chunks.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"
#include "services/rpc/access_control.h"

namespace mechinterp {
namespace {

struct ParsedCapture {
  explicit ParsedCapture(const engine::ModelConfig& config) : compiler(config) {}

  engine::PlanCompiler compiler;
  engine::TokenizedPrompt prompt;
  v1::DataType type = v1::DATA_TYPE_FLOAT32;
  int64_t capture_bytes = 0;
  absl::Duration time_to_live;
};

// What a capture takes. Its positions have been checked.
int64_t CaptureBytes(const engine::ModelConfig& config, const engine::CaptureRequest& capture,
                     const engine::TokenizedPrompt& prompt) {
  Violations ignored;
  const auto positions =
      static_cast<int64_t>(engine::ResolvePositions(capture.positions, prompt, ignored.root()).size());
  return engine::ActivationBytes(config, capture.sites, positions, prompt.length());
}

// What values are to be sent as.
v1::DataType ParseDataType(v1::DataType type, const FieldViolations& violations) {
  if (type == v1::DATA_TYPE_UNSPECIFIED) return v1::DATA_TYPE_FLOAT32;
  if (!ElementBytes(type)) violations.At("data_type").Add("must be FLOAT32, FLOAT16 or BFLOAT16");
  return type;
}

// Bytes of a run's values as they are sent.
uint64_t BytesOnTheWire(const engine::RecordedRun& run, v1::DataType type) {
  return static_cast<uint64_t>(ByteCount(run)) / sizeof(float) * ElementBytes(type).value();
}

absl::StatusOr<ParsedCapture> ParseCapture(ServiceCall& call, const v1::RunWithCacheRequest& request) {
  ServedModel& served = call.served;
  RequestParser parser(*served.model, served.store, call.owner());
  const FieldViolations violations = parser.violations();
  ParsedCapture parsed(served.config());
  parsed.prompt = parser.PromptToRun(request.prompt(), 0, violations.At("prompt"));
  const engine::InterventionSet interventions =
      ParseInterventions(parser, request.interventions(), violations);
  const engine::CaptureRequest capture = ParseFilter(parser, request.filter(), violations.At("filter"));
  const uint32_t ttl = request.has_store_ttl_seconds() ? request.store_ttl_seconds() : 3600;
  if (ttl < 1 || ttl > 86400) violations.At("store_ttl_seconds").Add("must be in [1, 86400]");
  parsed.time_to_live = absl::Seconds(ttl);
  parsed.type = ParseDataType(request.data_type(), violations);
  if (request.store() && request.data_type() != v1::DATA_TYPE_UNSPECIFIED) {
    violations.At("data_type").Add("must be unset with store: what is kept is what was computed");
  }
  parser.Compile(parsed.prompt, interventions, capture, parsed.compiler, violations);
  ABSTRACT_RETURN_IF_ERROR(parser.status());

  parsed.capture_bytes = CaptureBytes(served.config(), capture, parsed.prompt);
  const int64_t limit = served.options.max_activation_bytes;
  if (parsed.capture_bytes > limit) {
    violations.At("filter").Add(absl::StrCat("the activations would take ", parsed.capture_bytes,
                                             " bytes; the server allows ", limit,
                                             " a request. Name fewer sites or positions"));
  }
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  return parsed;
}

// Whether the client may store so many bytes more.
absl::Status MayStore(ServiceCall& call, int64_t bytes) {
  const Caller& caller = call.rpc->caller();
  ABSTRACT_RETURN_IF_ERROR(CheckPermission(caller, {.access = Access::kWrite}));
  if (!caller.max_stored_bytes) return absl::OkStatus();
  int64_t stored = 0;
  for (const ActivationStore::Entry& entry : call.served.store.List(caller.owner()))
    stored += ByteCount(*entry.info);
  if (stored + bytes <= *caller.max_stored_bytes) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kResourceExhausted,
                         absl::StrCat("you store ", stored, " bytes and may store ", *caller.max_stored_bytes,
                                      "; this run has ", bytes, ". Delete some, or wait until they expire"),
                         "STORED_BYTES_QUOTA");
}

template <typename Response>
absl::Status WriteHeader(const ServedModel& served, const engine::RecordedRun& run, v1::DataType type,
                         MessageWriter<Response>& writer) {
  Response message;
  *message.mutable_header() =
      BuildActivationHeader(*served.model, served.device_check.passed_id(), run, type);
  return writer.Write(message);
}

// A run's chunks, then the summary, as the client takes them; `memory` is held as long.
template <typename Response>
Call::Source RestOfStream(const ServedModel& served, std::shared_ptr<const engine::RecordedRun> run,
                          v1::DataType type, const v1::RunSummary& summary,
                          MemoryBudget::Reservation memory) {
  struct State {
    State(const engine::ModelConfig& config, std::shared_ptr<const engine::RecordedRun> recorded,
          v1::DataType sent_as)
        : chunks(config, std::move(recorded), sent_as, Response::kChunkFieldNumber) {}
    ChunkReader chunks;
    std::optional<v1::RunSummary> summary;
    MemoryBudget::Reservation memory;
  };
  const auto state = std::make_shared<State>(served.config(), std::move(run), type);
  state->summary = summary;
  state->memory = std::move(memory);
  return [state]() -> std::optional<grpc::ByteBuffer> {
    if (std::optional<grpc::ByteBuffer> chunk = state->chunks.Next()) return chunk;
    if (!state->summary) return std::nullopt;
    Response message;
    *message.mutable_summary() = *std::exchange(state->summary, std::nullopt);
    return Serialized(message);
  };
}

}  // namespace

absl::Status HandleRunWithCache(ServiceCall& call, const v1::RunWithCacheRequest& request,
                                MessageWriter<v1::RunWithCacheResponse>& writer) {
  ABSTRACT_ASSIGN_OR_RETURN(const ParsedCapture parsed, ParseCapture(call, request));
  if (request.store()) ABSTRACT_RETURN_IF_ERROR(MayStore(call, parsed.capture_bytes));
  ABSTRACT_ASSIGN_OR_RETURN(const auto plans, call.AdmitAndCompile(parsed.compiler, parsed.capture_bytes));
  call.CountPrompt(parsed.prompt, parsed.prompt.length());
  ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::RecordedRun> run,
                            engine::RunWithCache(call.context, parsed.prompt, plans.front()));
  call.request.Leave();  // sending needs no engine

  ABSTRACT_RETURN_IF_ERROR(WriteHeader(call.served, *run, parsed.type, writer));
  v1::RunSummary summary;
  *summary.mutable_timings() = call.Timings();
  summary.set_total_byte_count(BytesOnTheWire(*run, parsed.type));
  if (request.store()) {
    ABSTRACT_ASSIGN_OR_RETURN(*summary.mutable_handle(),
                              call.served.store.Put(call.owner(), run, parsed.time_to_live));
    v1::RunWithCacheResponse message;
    *message.mutable_summary() = std::move(summary);
    return writer.Write(message);
  }
  call.rpc->SendRest(
      RestOfStream<v1::RunWithCacheResponse>(call.served, run, parsed.type, summary, std::move(call.memory)));
  return absl::OkStatus();
}

absl::Status HandleGetActivation(ServedModel& served, Call& call, const v1::GetActivationRequest& request,
                                 MessageWriter<v1::GetActivationResponse>& writer) {
  Violations violations;
  const v1::DataType type = ParseDataType(request.data_type(), violations.root());
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_ASSIGN_OR_RETURN(const ActivationStore::Entry entry,
                            served.store.Get(call.caller().owner(), request.handle()));
  ABSTRACT_RETURN_IF_ERROR(WriteHeader(served, *entry.run, type, writer));
  v1::RunSummary summary;
  summary.set_handle(entry.info->handle);
  summary.set_total_byte_count(BytesOnTheWire(*entry.run, type));
  call.SendRest(RestOfStream<v1::GetActivationResponse>(served, entry.run, type, summary, {}));
  return absl::OkStatus();
}

}  // namespace mechinterp
