#include "services/model/patch_handler.h"

#include <algorithm>
#include <optional>

#include "services/common/status_macros.h"
#include "services/engine/operations/patch_run.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"

namespace mechinterp {
namespace {

struct ParsedPatch {
  explicit ParsedPatch(const engine::ModelConfig& config) : compiler(config) {}

  engine::PlanCompiler compiler;
  engine::TokenizedPrompt prompt;
  engine::MetricOptions metrics;
  std::optional<engine::SamplingOptions> continuation;

  // Most tokens that come after the prompt.
  int reserved_tokens() const {
    return std::max(metrics.longest_opening(), continuation ? continuation->max_new_tokens : 0);
  }
};

absl::StatusOr<ParsedPatch> ParsePatch(ServiceCall& call, const v1::RunWithPatchRequest& request) {
  ServedModel& served = call.served;
  RequestParser parser(*served.model, served.store, call.owner());
  const FieldViolations violations = parser.violations();
  ParsedPatch parsed(served.config());
  if (request.has_continuation()) {
    parsed.continuation = parser.Sampling(request.continuation(), violations.At("continuation"));
  }
  parsed.metrics = parser.Metrics(request.metrics(), violations.At("metrics"));
  parsed.prompt = parser.PromptToRun(request.prompt(), parsed.reserved_tokens(), violations.At("prompt"));
  if (request.interventions().empty()) violations.At("interventions").Add("must not be empty");
  parser.Compile(parsed.prompt, ParseInterventions(parser, request.interventions(), violations), {},
                 parsed.compiler, violations);
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  return parsed;
}

void WriteResponse(const ServedModel& served, const ParsedPatch& parsed, const engine::PatchRun& run,
                   v1::RunWithPatchResponse& response) {
  *response.mutable_model() = served.Identity();
  *response.mutable_clean() = BuildMetrics(*served.model, run.clean);
  *response.mutable_patched() = BuildMetrics(*served.model, run.patched);
  if (parsed.continuation) {
    *response.mutable_clean_continuation() = BuildContinuation(*served.model, *run.clean_continuation);
    *response.mutable_patched_continuation() = BuildContinuation(*served.model, *run.patched_continuation);
    response.set_seed(parsed.continuation->seed);
  }
  for (engine::TokenId id : parsed.prompt.ids) response.add_prompt_token_ids(id);
}

}  // namespace

absl::Status HandleRunWithPatch(ServiceCall& call, const v1::RunWithPatchRequest& request,
                                v1::RunWithPatchResponse& response) {
  ABSTRACT_ASSIGN_OR_RETURN(const ParsedPatch parsed, ParsePatch(call, request));
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto plans,
      call.AdmitAndCompile(parsed.compiler,
                           engine::PatchRunBytes(call.served.config(), parsed.prompt.length(), parsed.metrics,
                                                 parsed.continuation)));
  call.CountPrompt(parsed.prompt, parsed.prompt.length());
  ABSTRACT_ASSIGN_OR_RETURN(
      const engine::PatchRun run,
      engine::RunWithPatch(call.context, parsed.prompt, plans.front(), parsed.metrics, parsed.continuation));
  call.served.metrics.patch_runs.Increment();
  WriteResponse(call.served, parsed, run, response);
  *response.mutable_timings() = call.Timings();
  return absl::OkStatus();
}

}  // namespace mechinterp
