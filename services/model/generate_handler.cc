#include "services/model/generate_handler.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/run_metrics.h"
#include "services/engine/tokenizer/streaming_detokenizer.h"
#include "services/model/generation_metrics.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"

namespace mechinterp {
namespace {

struct ParsedGeneration {
  explicit ParsedGeneration(const engine::ModelConfig& config) : compiler(config) {}

  engine::PlanCompiler compiler;
  engine::TokenizedPrompt prompt;
  engine::SamplingOptions sampling;
  std::optional<engine::MetricOptions> metrics;
  bool has_interventions = false;

  int64_t EstimateBytes(const engine::ModelConfig& config) const {
    return engine::GenerationBytes(config, prompt.length(), sampling.max_new_tokens, sampling) +
           (metrics ? engine::MetricsBytes(config, *metrics) : 0);
  }
};

absl::StatusOr<ParsedGeneration> ParseGeneration(ServiceCall& call, const v1::GenerateRequest& request) {
  ServedModel& served = call.served;
  RequestParser parser(*served.model, served.store, call.owner());
  const FieldViolations violations = parser.violations();
  ParsedGeneration parsed(served.config());
  parsed.sampling = parser.Sampling(request.sampling(), violations.At("sampling"));
  int reserved = parsed.sampling.max_new_tokens;
  if (request.has_metrics()) {
    parsed.metrics = parser.Metrics(request.metrics(), violations.At("metrics"));
    reserved = std::max(reserved, parsed.metrics->longest_opening());
  }
  parsed.prompt = parser.PromptToRun(request.prompt(), reserved, violations.At("prompt"));
  parsed.has_interventions = !request.interventions().empty();
  parser.Compile(parsed.prompt, ParseInterventions(parser, request.interventions(), violations), {},
                 parsed.compiler, violations);
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  return parsed;
}

absl::StatusOr<engine::Prefilled> Prefill(ServiceCall& call, const ParsedGeneration& parsed,
                                          std::shared_ptr<const engine::HookPlan> plan) {
  const engine::PrefillRequest request{parsed.prompt, std::move(plan), parsed.sampling.max_new_tokens};
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<engine::Prefilled> prefilled,
                            engine::Prefill(call.context, absl::MakeConstSpan(&request, 1)));
  return std::move(prefilled.front());
}

// Of the prompt's run; a run without interventions is the clean one.
absl::StatusOr<engine::RunMetrics> Measure(ServiceCall& call, const ParsedGeneration& parsed,
                                           const engine::Prefilled& prefilled) {
  const engine::MeasuredRun run{prefilled.prompt, prefilled.plan, prefilled.cache, prefilled.logits.values};
  std::optional<engine::ReferenceDistribution> clean;
  if (!parsed.has_interventions) clean.emplace(run.last_logits);
  return engine::MeasureRun(call.context, run, clean ? &*clean : nullptr, *parsed.metrics);
}

// Writes the messages of one stream.
class GenerationWriter {
 public:
  GenerationWriter(ServedModel& served, MessageWriter<v1::GenerateResponse>& writer)
      : served_(served), writer_(writer) {
    if (served.model->tokenizer() != nullptr) text_.emplace(served.model->tokenizer());
  }

  absl::Status WriteHeader(const ParsedGeneration& parsed) {
    v1::GenerateResponse message;
    v1::RunHeader& header = *message.mutable_header();
    *header.mutable_model() = served_.Identity();
    for (engine::TokenId id : parsed.prompt.ids) header.add_prompt_token_ids(id);
    header.set_seed(parsed.sampling.seed);
    return writer_.Write(message);
  }

  absl::Status WriteToken(const engine::ChosenToken& chosen) {
    v1::GenerateResponse message;
    v1::GeneratedToken& token = *message.mutable_token();
    token.set_token_id(chosen.id);
    token.set_log_probability(chosen.log_probability);
    if (text_ && !chosen.stops) token.set_text(text_->Push(chosen.id));
    return writer_.Write(message);
  }

  absl::Status WriteSummary(const engine::Generation& generation,
                            const std::optional<engine::RunMetrics>& metrics, const v1::RunTimings& timings) {
    v1::GenerateResponse message;
    v1::GenerateSummary& summary = *message.mutable_summary();
    *summary.mutable_continuation() = BuildContinuation(*served_.model, generation);
    if (text_) summary.set_trailing_text(text_->Flush());
    if (metrics) *summary.mutable_metrics() = BuildMetrics(*served_.model, *metrics);
    *summary.mutable_timings() = timings;
    return writer_.Write(message);
  }

 private:
  ServedModel& served_;
  MessageWriter<v1::GenerateResponse>& writer_;
  std::optional<engine::StreamingDetokenizer> text_;  // nothing without a tokenizer
};

absl::Status Run(ServiceCall& call, const v1::GenerateRequest& request,
                 MessageWriter<v1::GenerateResponse>& writer, GenerationMeter& meter) {
  ABSTRACT_ASSIGN_OR_RETURN(const ParsedGeneration parsed, ParseGeneration(call, request));
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto plans, call.AdmitAndCompile(parsed.compiler, parsed.EstimateBytes(call.served.config())));
  call.CountPrompt(parsed.prompt, parsed.prompt.length());

  GenerationWriter out(call.served, writer);
  ABSTRACT_RETURN_IF_ERROR(out.WriteHeader(parsed));
  ABSTRACT_ASSIGN_OR_RETURN(engine::Prefilled prefilled, Prefill(call, parsed, plans.front()));
  ABSTRACT_ASSIGN_OR_RETURN(
      const engine::Generation generation,
      engine::Continue(call.context, prefilled, parsed.sampling, [&](const engine::ChosenToken& token) {
        meter.OnToken(absl::Now(), call.context.waited);
        call.CountNewTokens(1);
        return out.WriteToken(token);
      }));
  std::optional<engine::RunMetrics> metrics;
  if (parsed.metrics) {
    ABSTRACT_ASSIGN_OR_RETURN(metrics, Measure(call, parsed, prefilled));
  }
  call.request.Leave();  // sending needs no engine
  ABSTRACT_RETURN_IF_ERROR(out.WriteSummary(generation, metrics, call.Timings()));
  meter.OnEnd(absl::Now(), generation.finish_reason, parsed.prompt.length());
  return absl::OkStatus();
}

}  // namespace

absl::Status HandleGenerate(ServiceCall& call, const v1::GenerateRequest& request,
                            MessageWriter<v1::GenerateResponse>& writer) {
  GenerationMeter meter(call.served.metrics.generations, call.arrival(), call.start - call.arrival());
  const absl::Status status = Run(call, request, writer, meter);
  if (!status.ok() && call.is_cancelled()) meter.OnAbort();
  return status;
}

}  // namespace mechinterp
