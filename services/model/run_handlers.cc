// The handlers of ModelService that run the model.

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/memory_estimate.h"
#include "services/engine/operations/patch_run.h"
#include "services/engine/operations/sweep.h"
#include "services/engine/tokenizer/streaming_detokenizer.h"
#include "services/model/model_service.h"
#include "services/model/service_call.h"

namespace mechinterp {
namespace {

absl::Status ClientGone() { return absl::CancelledError("the client no longer reads the stream"); }

v1::RunHeader BuildHeader(const v1::ModelIdentity& model, const engine::TokenizedPrompt& prompt,
                          uint64_t seed) {
  v1::RunHeader header;
  *header.mutable_model() = model;
  for (engine::TokenId id : prompt.ids) header.add_prompt_token_ids(id);
  header.set_seed(seed);
  return header;
}

int LongestOpening(const engine::MetricOptions& metrics) {
  size_t longest = 0;
  for (const auto* openings : {&metrics.refusal_openings, &metrics.compliance_openings}) {
    for (const auto& opening : *openings) longest = std::max(longest, opening.size());
  }
  return static_cast<int>(longest);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const engine::HookPlan>> ModelService::Compile(
    Call& call, RequestParser& parser, const engine::TokenizedPrompt& prompt,
    const engine::InterventionSet& interventions, const engine::CaptureRequest& capture, int64_t run_bytes) {
  engine::PlanCompiler compiler(model_->config());
  if (prompt.length() > 0) compiler.Add(prompt, interventions, capture, parser.violations());
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  ABSTRACT_ASSIGN_OR_RETURN(const int64_t capture_bytes, CaptureBytes(capture, prompt));
  ABSTRACT_RETURN_IF_ERROR(
      call.Admit(run_bytes + capture_bytes + engine::PlanBytes(model_->config(), compiler)));
  metrics_.prompt_tokens.Increment(prompt.length());
  ABSTRACT_ASSIGN_OR_RETURN(auto plans, engine::RunSourcesAndFinish(call.context, compiler));
  return plans.front();
}

absl::StatusOr<int64_t> ModelService::CaptureBytes(const engine::CaptureRequest& capture,
                                                   const engine::TokenizedPrompt& prompt) const {
  Violations ignored;  // the compiler has checked the positions
  const auto positions =
      static_cast<int64_t>(engine::ResolvePositions(capture.positions, prompt, ignored.root()).size());
  const int64_t bytes = engine::ActivationBytes(model_->config(), capture.sites, positions, prompt.length());
  if (bytes <= options_.max_activation_bytes) return bytes;
  Violations violations;
  violations.Add("filter",
                 absl::StrCat("the activations would take ", bytes, " bytes; the server allows ",
                              options_.max_activation_bytes, " a request. Name fewer sites or positions"));
  return ToStatus(violations);
}

absl::Status ModelService::DoGenerate(Call& call, const v1::GenerateRequest& request,
                                      grpc::ServerWriter<v1::GenerateResponse>& writer) {
  RequestParser parser(*model_, store_);
  const engine::SamplingOptions sampling =
      parser.Sampling(request.sampling(), parser.violations().At("sampling"));
  const engine::TokenizedPrompt prompt =
      parser.PromptToRun(request.prompt(), sampling.max_new_tokens, parser.violations().At("prompt"));
  const engine::InterventionSet interventions =
      parser.Interventions(request.interventions(), parser.violations());
  ABSTRACT_ASSIGN_OR_RETURN(auto plan, Compile(call, parser, prompt, interventions, {},
                                               engine::GenerationBytes(model_->config(), prompt.length(),
                                                                       sampling.max_new_tokens)));

  v1::GenerateResponse message;
  *message.mutable_header() = BuildHeader(Identity(), prompt, sampling.seed);
  if (!writer.Write(message)) return ClientGone();

  const engine::PrefillRequest prefill{prompt, plan, sampling.max_new_tokens};
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<engine::Prefilled> prefilled,
                            engine::Prefill(call.context, absl::MakeConstSpan(&prefill, 1)));
  std::optional<engine::StreamingDetokenizer> text;
  if (model_->tokenizer() != nullptr) text.emplace(model_->tokenizer());
  auto send = [&](engine::TokenId id, double log_probability) {
    v1::GenerateResponse token;
    token.mutable_token()->set_token_id(id);
    token.mutable_token()->set_log_probability(log_probability);
    if (text) token.mutable_token()->set_text(text->Push(id));
    metrics_.generated_tokens.Increment();
    return writer.Write(token) ? absl::OkStatus() : ClientGone();
  };
  ABSTRACT_ASSIGN_OR_RETURN(const engine::Generation generation,
                            engine::Continue(call.context, prefilled.front(), sampling, send));
  call.request.Leave();  // sending needs no engine

  v1::GenerateSummary& summary = *message.mutable_summary();
  *summary.mutable_continuation() = BuildContinuation(*model_, generation);
  if (text) summary.set_trailing_text(text->Flush());
  *summary.mutable_timings() = call.Timings();
  return writer.Write(message) ? absl::OkStatus() : ClientGone();
}

absl::Status ModelService::DoRunWithCache(Call& call, const v1::RunWithCacheRequest& request,
                                          grpc::ServerWriter<v1::RunWithCacheResponse>& writer) {
  RequestParser parser(*model_, store_);
  const FieldViolations violations = parser.violations();
  const engine::TokenizedPrompt prompt = parser.PromptToRun(request.prompt(), 0, violations.At("prompt"));
  const engine::InterventionSet interventions = parser.Interventions(request.interventions(), violations);
  const engine::CaptureRequest capture = parser.Filter(request.filter(), violations.At("filter"));
  const uint32_t ttl = request.has_store_ttl_seconds() ? request.store_ttl_seconds() : 3600;
  if (ttl < 1 || ttl > 86400) violations.At("store_ttl_seconds").Add("must be in [1, 86400]");
  ABSTRACT_ASSIGN_OR_RETURN(auto plan, Compile(call, parser, prompt, interventions, capture, 0));
  ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::RecordedRun> run,
                            engine::RunWithCache(call.context, prompt, plan));
  call.request.Leave();  // sending needs no engine

  v1::RunWithCacheResponse message;
  *message.mutable_header() = BuildActivationHeader(*model_, device_check_.passed_id(), *run);
  if (!writer.Write(message)) return ClientGone();
  std::string handle;
  if (request.store()) {
    ABSTRACT_ASSIGN_OR_RETURN(handle, store_.Put(run, absl::Seconds(ttl)));
  } else {
    bool reading = true;
    ForEachChunk(model_->config(), *run, [&](v1::ActivationChunk chunk) {
      v1::RunWithCacheResponse part;
      *part.mutable_chunk() = std::move(chunk);
      return reading = writer.Write(part);
    });
    if (!reading) return ClientGone();
  }
  *message.mutable_summary()->mutable_timings() = call.Timings();
  message.mutable_summary()->set_handle(handle);
  message.mutable_summary()->set_total_byte_count(ByteCount(*run));
  return writer.Write(message) ? absl::OkStatus() : ClientGone();
}

absl::Status ModelService::DoRunWithPatch(Call& call, const v1::RunWithPatchRequest& request,
                                          v1::RunWithPatchResponse& response) {
  RequestParser parser(*model_, store_);
  const FieldViolations violations = parser.violations();
  std::optional<engine::SamplingOptions> continuation;
  if (request.has_continuation()) {
    continuation = parser.Sampling(request.continuation(), violations.At("continuation"));
  }
  const engine::MetricOptions metrics = parser.Metrics(request.metrics(), violations.At("metrics"));
  const int reserved = std::max(LongestOpening(metrics), continuation ? continuation->max_new_tokens : 0);
  const engine::TokenizedPrompt prompt =
      parser.PromptToRun(request.prompt(), reserved, violations.At("prompt"));
  if (request.interventions().empty()) violations.At("interventions").Add("must not be empty");
  const engine::InterventionSet interventions = parser.Interventions(request.interventions(), violations);
  ABSTRACT_ASSIGN_OR_RETURN(
      auto plan, Compile(call, parser, prompt, interventions, {},
                         engine::PatchRunBytes(model_->config(), prompt.length(), reserved, metrics)));
  ABSTRACT_ASSIGN_OR_RETURN(const engine::PatchRun run,
                            engine::RunWithPatch(call.context, prompt, plan, metrics, continuation));

  *response.mutable_model() = Identity();
  *response.mutable_clean() = BuildMetrics(*model_, run.clean);
  *response.mutable_patched() = BuildMetrics(*model_, run.patched);
  if (continuation) {
    *response.mutable_clean_continuation() = BuildContinuation(*model_, *run.clean_continuation);
    *response.mutable_patched_continuation() = BuildContinuation(*model_, *run.patched_continuation);
    response.set_seed(continuation->seed);
  }
  for (engine::TokenId id : prompt.ids) response.add_prompt_token_ids(id);
  *response.mutable_timings() = call.Timings();
  return absl::OkStatus();
}

absl::Status ModelService::DoRunPatchSweep(Call& call, const v1::RunPatchSweepRequest& request,
                                           grpc::ServerWriter<v1::RunPatchSweepResponse>& writer) {
  RequestParser parser(*model_, store_);
  const FieldViolations violations = parser.violations();
  engine::SweepRequest sweep;
  sweep.metrics = parser.Metrics(request.metrics(), violations.At("metrics"));
  const int reserved = LongestOpening(sweep.metrics);
  sweep.prompt = parser.PromptToRun(request.prompt(), reserved, violations.At("prompt"));
  if (request.has_source_prompt()) {
    sweep.source_prompt =
        parser.PromptToRun(request.source_prompt(), reserved, violations.At("source_prompt"));
  }

  engine::ExpandedGrid grid;
  engine::PlanCompiler compiler(model_->config());
  if (request.has_grid() == !request.sets().empty()) {
    violations.At("grid").Add("exactly one of sets and grid must be given");
  } else if (request.has_grid() && sweep.prompt.length() > 0) {
    const FieldViolations at_grid = violations.At("grid");
    const engine::SweepGrid parsed = parser.Grid(request.grid(), at_grid);
    if (parser.status().ok()) grid = engine::ExpandGrid(parsed, model_->config(), sweep.prompt, at_grid);
    for (size_t i = 0; i < grid.sets.size(); ++i) {
      compiler.Add(sweep.prompt, grid.sets[i], {}, at_grid.At("expanded", i));
      if (!violations.empty()) break;  // the others are wrong in the same way
    }
  } else if (sweep.prompt.length() > 0) {
    for (int i = 0; i < request.sets_size(); ++i) {
      const FieldViolations at_set = violations.At("sets", i);
      compiler.Add(sweep.prompt, parser.Interventions(request.sets(i).interventions(), at_set), {}, at_set);
    }
  }
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  const int source_length = sweep.source_prompt ? sweep.source_prompt->length() : 0;
  ABSTRACT_RETURN_IF_ERROR(call.Admit(engine::PlanBytes(model_->config(), compiler) +
                                      engine::SweepBytes(model_->config(), sweep.prompt.length(),
                                                         source_length, compiler.EntryPoints(), sweep.metrics,
                                                         call.request.preferred_batch_rows())));
  metrics_.prompt_tokens.Increment(sweep.prompt.length());
  ABSTRACT_ASSIGN_OR_RETURN(sweep.plans, engine::RunSourcesAndFinish(call.context, compiler));

  engine::SweepSink sink;
  sink.on_baselines = [&](const engine::SweepBaselines& baselines) {
    v1::RunPatchSweepResponse message;
    v1::SweepHeader& header = *message.mutable_header();
    *header.mutable_model() = Identity();
    header.set_set_count(static_cast<uint32_t>(sweep.plans.size()));
    for (engine::TokenId id : sweep.prompt.ids) {
      header.add_prompt_token_ids(id);
      header.add_prompt_pieces(TokenText(*model_, id));
    }
    *header.mutable_clean() = BuildMetrics(*model_, baselines.clean);
    if (baselines.source) *header.mutable_source() = BuildMetrics(*model_, *baselines.source);
    for (const engine::SweepSite& site : grid.sites) *header.add_sites() = BuildSweepSite(site);
    if (sweep.source_prompt) {
      for (engine::TokenId id : sweep.source_prompt->ids) header.add_source_token_ids(id);
    }
    return writer.Write(message) ? absl::OkStatus() : ClientGone();
  };
  sink.on_result = [&](const engine::SweepResult& result) {
    v1::RunPatchSweepResponse message;
    message.mutable_result()->set_set_index(result.set_index);
    *message.mutable_result()->mutable_metrics() = BuildMetrics(*model_, result.metrics);
    if (result.effect) message.mutable_result()->set_effect(*result.effect);
    metrics_.sweep_runs.Increment();
    return writer.Write(message) ? absl::OkStatus() : ClientGone();
  };
  ABSTRACT_ASSIGN_OR_RETURN(const engine::SweepTotals totals,
                            engine::RunPatchSweep(call.context, sweep, sink));
  metrics_.sweep_computed_token_layers.Increment(static_cast<double>(totals.computed_token_layers));
  metrics_.sweep_naive_token_layers.Increment(static_cast<double>(totals.naive_token_layers));

  v1::RunPatchSweepResponse message;
  v1::SweepSummary& summary = *message.mutable_summary();
  *summary.mutable_timings() = call.Timings();
  summary.set_run_count(static_cast<uint32_t>(sweep.plans.size()));
  summary.set_computed_token_layers(totals.computed_token_layers);
  summary.set_naive_token_layers(totals.naive_token_layers);
  return writer.Write(message) ? absl::OkStatus() : ClientGone();
}

}  // namespace mechinterp
