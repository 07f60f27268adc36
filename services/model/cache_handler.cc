#include "services/model/cache_handler.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/cached_run.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"

namespace mechinterp {
namespace {

struct ParsedCapture {
  explicit ParsedCapture(const engine::ModelConfig& config) : compiler(config) {}

  engine::PlanCompiler compiler;
  engine::TokenizedPrompt prompt;
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

absl::StatusOr<ParsedCapture> ParseCapture(ServedModel& served, const v1::RunWithCacheRequest& request) {
  RequestParser parser(*served.model, served.store);
  const FieldViolations violations = parser.violations();
  ParsedCapture parsed(served.config());
  parsed.prompt = parser.PromptToRun(request.prompt(), 0, violations.At("prompt"));
  const engine::InterventionSet interventions =
      ParseInterventions(parser, request.interventions(), violations);
  const engine::CaptureRequest capture = ParseFilter(parser, request.filter(), violations.At("filter"));
  const uint32_t ttl = request.has_store_ttl_seconds() ? request.store_ttl_seconds() : 3600;
  if (ttl < 1 || ttl > 86400) violations.At("store_ttl_seconds").Add("must be in [1, 86400]");
  parsed.time_to_live = absl::Seconds(ttl);
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

template <typename Response>
absl::Status WriteHeader(const ServedModel& served, const engine::RecordedRun& run,
                         grpc::ServerWriter<Response>& writer) {
  Response message;
  *message.mutable_header() = BuildActivationHeader(*served.model, served.device_check.passed_id(), run);
  return WriteTo(writer, message);
}

template <typename Response>
absl::Status WriteChunks(const ServedModel& served, const engine::RecordedRun& run,
                         grpc::ServerWriter<Response>& writer) {
  absl::Status status;
  ForEachChunk(served.config(), run, [&](v1::ActivationChunk chunk) {
    Response message;
    *message.mutable_chunk() = std::move(chunk);
    status = WriteTo(writer, message);
    return status.ok();
  });
  return status;
}

}  // namespace

absl::Status HandleRunWithCache(ServiceCall& call, const v1::RunWithCacheRequest& request,
                                grpc::ServerWriter<v1::RunWithCacheResponse>& writer) {
  ABSTRACT_ASSIGN_OR_RETURN(const ParsedCapture parsed, ParseCapture(call.served, request));
  ABSTRACT_ASSIGN_OR_RETURN(const auto plans, call.AdmitAndCompile(parsed.compiler, parsed.capture_bytes));
  call.served.metrics.prompt_tokens.Increment(parsed.prompt.length());
  ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::RecordedRun> run,
                            engine::RunWithCache(call.context, parsed.prompt, plans.front()));
  call.request.Leave();  // sending needs no engine

  ABSTRACT_RETURN_IF_ERROR(WriteHeader(call.served, *run, writer));
  v1::RunWithCacheResponse message;
  v1::RunSummary& summary = *message.mutable_summary();
  if (request.store()) {
    ABSTRACT_ASSIGN_OR_RETURN(*summary.mutable_handle(),
                              call.served.store.Put(call.owner, run, parsed.time_to_live));
  } else {
    ABSTRACT_RETURN_IF_ERROR(WriteChunks(call.served, *run, writer));
  }
  *summary.mutable_timings() = call.Timings();
  summary.set_total_byte_count(ByteCount(*run));
  return WriteTo(writer, message);
}

absl::Status HandleGetActivation(ServedModel& served, const v1::GetActivationRequest& request,
                                 grpc::ServerWriter<v1::GetActivationResponse>& writer,
                                 const std::string& owner) {
  ABSTRACT_ASSIGN_OR_RETURN(const ActivationStore::Entry entry, served.store.Get(owner, request.handle()));
  ABSTRACT_RETURN_IF_ERROR(WriteHeader(served, *entry.run, writer));
  ABSTRACT_RETURN_IF_ERROR(WriteChunks(served, *entry.run, writer));
  v1::GetActivationResponse message;
  message.mutable_summary()->set_handle(entry.info->handle);
  message.mutable_summary()->set_total_byte_count(ByteCount(*entry.run));
  return WriteTo(writer, message);
}

}  // namespace mechinterp
