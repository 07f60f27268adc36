#include "services/model/sweep_handler.h"

#include <utility>
#include <vector>

#include "services/common/paging.h"
#include "services/common/status_macros.h"
#include "services/engine/interventions/sweep_grid.h"
#include "services/engine/operations/sweep.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"

namespace mechinterp {
namespace {

struct ParsedSweep {
  explicit ParsedSweep(const engine::ModelConfig& config) : compiler(config) {}

  engine::PlanCompiler compiler;  // the base, where there is one, and the sets
  bool has_base = false;
  engine::SweepRequest sweep;            // the plans come when they are compiled
  std::vector<engine::SweepSite> sites;  // what each set touches; with a grid only
  int64_t base_bytes = 0;

  int64_t EstimateBytes(const engine::ModelConfig& config, int batch_rows) const {
    const int source_length = sweep.source_prompt ? sweep.source_prompt->length() : 0;
    std::vector<engine::EntryPoint> entries = compiler.EntryPoints();
    int64_t bases = 0;
    if (has_base) {
      entries.erase(entries.begin());
      bases = base_bytes * engine::SweepBatchRuns(config, sweep.prompt.length(), entries, batch_rows);
    }
    return bases + engine::SweepBytes(config, sweep.prompt.length(), source_length, entries, sweep.metrics,
                                      batch_rows);
  }
};

void AddPrompts(const v1::RunPatchSweepRequest& request, RequestParser& parser, engine::SweepRequest& sweep) {
  const FieldViolations violations = parser.violations();
  sweep.metrics = parser.Metrics(request.metrics(), violations.At("metrics"));
  const int reserved = sweep.metrics.longest_opening();
  sweep.prompt = parser.PromptToRun(request.prompt(), reserved, violations.At("prompt"));
  if (request.has_source_prompt()) {
    sweep.source_prompt =
        parser.PromptToRun(request.source_prompt(), reserved, violations.At("source_prompt"));
  }
}

void AddGrid(ServiceCall& call, const v1::SweepGrid& request, RequestParser& parser, ParsedSweep& parsed) {
  const engine::ModelConfig& config = call.served.config();
  const FieldViolations at_grid = parser.violations().At("grid");
  const engine::SweepGrid grid = ParseGrid(parser, request, at_grid);
  if (!parser.status().ok() || parsed.sweep.prompt.length() == 0) return;
  const int64_t bytes = engine::ExpandedGridBytes(grid, config, parsed.sweep.prompt);
  if (absl::Status status = call.HoldForParsing(bytes); !status.ok()) return parser.Fail(status);
  engine::ExpandedGrid expanded = engine::ExpandGrid(grid, config, parsed.sweep.prompt, at_grid);
  for (size_t i = 0; i < expanded.sets.size(); ++i) {
    parser.Compile(parsed.sweep.prompt, expanded.sets[i], {}, parsed.compiler, at_grid.At("expanded", i));
    if (!parser.violations().empty()) return;  // the others are wrong in the same way
  }
  parsed.sites = std::move(expanded.sites);
}

void AddSets(const google::protobuf::RepeatedPtrField<v1::InterventionSet>& sets, RequestParser& parser,
             ParsedSweep& parsed) {
  for (int i = 0; i < sets.size(); ++i) {
    const FieldViolations at_set = parser.violations().At("sets", i);
    parser.Compile(parsed.sweep.prompt, ParseInterventions(parser, sets[i].interventions(), at_set), {},
                   parsed.compiler, at_set);
  }
}

absl::StatusOr<ParsedSweep> ParseSweep(ServiceCall& call, const v1::RunPatchSweepRequest& request) {
  ServedModel& served = call.served;
  RequestParser parser(*served.model, served.store, call.owner());
  ParsedSweep parsed(served.config());
  AddPrompts(request, parser, parsed.sweep);
  if (request.has_base()) {
    const FieldViolations at_base = parser.violations().At("base");
    parsed.has_base = parsed.sweep.prompt.length() > 0;
    parser.Compile(parsed.sweep.prompt, ParseInterventions(parser, request.base().interventions(), at_base),
                   {}, parsed.compiler, at_base);
    parsed.base_bytes = parsed.compiler.PlanBytes();
  }
  if (request.has_grid() == !request.sets().empty()) {
    parser.violations().At("grid").Add("exactly one of sets and grid must be given");
  } else if (request.has_grid()) {
    AddGrid(call, request.grid(), parser, parsed);
  } else {
    int64_t bytes = 0;
    for (const v1::InterventionSet& set : request.sets()) bytes += call.PlanBytes(set.interventions());
    ABSTRACT_RETURN_IF_ERROR(call.HoldForParsing(bytes));
    AddSets(request.sets(), parser, parsed);
  }
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  return parsed;
}

// Writes the messages of one stream, and counts what they tell.
class SweepWriter {
 public:
  SweepWriter(ServedModel& served, const ParsedSweep& parsed,
              MessageWriter<v1::RunPatchSweepResponse>& writer)
      : served_(served), parsed_(parsed), writer_(writer) {}

  engine::SweepSink Sink() {
    return {[this](const engine::SweepBaselines& baselines) { return WriteHeader(baselines); },
            [this](const engine::SweepResult& result) { return WriteResult(result); }};
  }

  absl::Status WriteSummary(const engine::SweepTotals& totals, const v1::RunTimings& timings) {
    served_.metrics.sweep_computed_token_layers.Increment(static_cast<double>(totals.computed_token_layers));
    served_.metrics.sweep_naive_token_layers.Increment(static_cast<double>(totals.naive_token_layers));
    v1::RunPatchSweepResponse message;
    v1::SweepSummary& summary = *message.mutable_summary();
    *summary.mutable_timings() = timings;
    summary.set_run_count(set_count());
    summary.set_computed_token_layers(totals.computed_token_layers);
    summary.set_naive_token_layers(totals.naive_token_layers);
    return writer_.Write(message);
  }

 private:
  uint32_t set_count() const { return static_cast<uint32_t>(parsed_.sweep.plans.size()); }

  absl::Status WriteHeader(const engine::SweepBaselines& baselines) {
    v1::RunPatchSweepResponse message;
    v1::SweepHeader& header = *message.mutable_header();
    *header.mutable_model() = served_.Identity();
    header.set_set_count(set_count());
    for (engine::TokenId id : parsed_.sweep.prompt.ids) {
      header.add_prompt_token_ids(id);
      header.add_prompt_pieces(TokenText(*served_.model, id));
    }
    *header.mutable_clean() = BuildMetrics(*served_.model, baselines.clean);
    if (baselines.source) *header.mutable_source() = BuildMetrics(*served_.model, *baselines.source);
    if (parsed_.sweep.source_prompt) {
      for (engine::TokenId id : parsed_.sweep.source_prompt->ids) header.add_source_token_ids(id);
    }
    return WriteSites(message);
  }

  // Writes `message`, a header, and with it the sites, in as many more messages as they
  // take.
  absl::Status WriteSites(v1::RunPatchSweepResponse& message) {
    size_t bytes = message.ByteSizeLong();
    for (const engine::SweepSite& site : parsed_.sites) {
      v1::SweepSite entry = BuildSweepSite(site);
      bytes += EntryBytes(entry);
      if (bytes > kPieceBytes) {
        ABSTRACT_RETURN_IF_ERROR(writer_.Write(message));
        message.Clear();
        bytes = EntryBytes(entry);
      }
      // A cleared message has no header any longer: it is one that goes on.
      auto& sites = message.has_header() ? *message.mutable_header()->mutable_sites()
                                         : *message.mutable_sites()->mutable_sites();
      *sites.Add() = std::move(entry);
    }
    return writer_.Write(message);
  }

  absl::Status WriteResult(const engine::SweepResult& result) {
    v1::RunPatchSweepResponse message;
    message.mutable_result()->set_set_index(result.set_index);
    *message.mutable_result()->mutable_metrics() = BuildMetrics(*served_.model, result.metrics);
    if (result.effect) message.mutable_result()->set_effect(*result.effect);
    served_.metrics.sweep_runs.Increment();
    return writer_.Write(message);
  }

  ServedModel& served_;
  const ParsedSweep& parsed_;
  MessageWriter<v1::RunPatchSweepResponse>& writer_;
};

}  // namespace

absl::Status HandleRunPatchSweep(ServiceCall& call, const v1::RunPatchSweepRequest& request,
                                 MessageWriter<v1::RunPatchSweepResponse>& writer) {
  ABSTRACT_ASSIGN_OR_RETURN(ParsedSweep parsed, ParseSweep(call, request));
  ABSTRACT_ASSIGN_OR_RETURN(
      parsed.sweep.plans,
      call.AdmitAndCompile(parsed.compiler,
                           parsed.EstimateBytes(call.served.config(), call.request.preferred_batch_rows())));
  if (parsed.has_base) {
    parsed.sweep.base = parsed.sweep.plans.front();
    parsed.sweep.plans.erase(parsed.sweep.plans.begin());
  }
  call.CountPrompt(parsed.sweep.prompt, parsed.sweep.prompt.length());

  SweepWriter out(call.served, parsed, writer);
  ABSTRACT_ASSIGN_OR_RETURN(const engine::SweepTotals totals,
                            engine::RunPatchSweep(call.context, parsed.sweep, out.Sink()));
  return out.WriteSummary(totals, call.Timings());
}

}  // namespace mechinterp
