#include "services/engine/operations/circuit_run.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/forward/circuit_plan.h"
#include "services/engine/operations/run_metrics.h"
#include "services/engine/weights/pass_scratch.h"

namespace mechinterp::engine {
namespace {

Segment SegmentOf(const TokenizedPrompt& prompt) {
  Segment segment;
  segment.tokens = prompt.ids;
  segment.logits_rows = LogitsRows::kLast;
  return segment;
}

std::shared_ptr<const HookPlan> CapturePlan(const ModelConfig& config, int length) {
  std::vector<int> positions(length);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<HookSite> sites = CircuitSourceSites(config);
  return WithCaptures(nullptr, length, {sites.begin(), sites.end()}, positions);
}

}  // namespace

absl::Status RunCircuits(RunContext& context, const CircuitRequest& request, const CircuitSink& sink) {
  const ModelConfig& config = context.executor.model().config();
  Segment clean = SegmentOf(request.prompt), source = SegmentOf(request.source);
  source.plan = CapturePlan(config, request.source.length());
  Segment* const both[] = {&clean, &source};
  ABSTRACT_RETURN_IF_ERROR(context.Run(both));
  const ReferenceDistribution distribution(clean.logits.values);
  const auto measure = [&](const Segment& run) {
    return MeasureLogits(run.logits.values, distribution, request.metrics);
  };
  const CircuitBaselines baselines{measure(clean), measure(source)};
  ABSTRACT_RETURN_IF_ERROR(sink.on_baselines(baselines));

  const auto recorded =
      std::make_shared<const std::map<HookSite, RecordedActivation>>(std::move(source.activations));
  for (int i = 0; i < request.circuit_count; ++i) {
    auto plan = std::make_shared<CircuitPlan>(CircuitPlan{request.circuit(i), recorded});
    const int64_t edges = plan->circuit.EdgeCount();
    Segment segment = SegmentOf(request.prompt);
    segment.circuit = std::move(plan);
    Segment* const one[] = {&segment};
    ABSTRACT_RETURN_IF_ERROR(context.Run(one));
    const RunMetrics metrics = measure(segment);
    ABSTRACT_RETURN_IF_ERROR(
        sink.on_result({i, metrics, Faithfulness(metrics, baselines.clean, baselines.source), edges}));
  }
  return absl::OkStatus();
}

std::optional<double> Faithfulness(const RunMetrics& circuit, const RunMetrics& clean,
                                   const RunMetrics& source) {
  return Effect(circuit, source, clean);
}

int64_t CircuitBytes(const ModelConfig& config, int64_t prompt_length, const MetricOptions& metrics,
                     int64_t sender_count, int64_t reader_count, int64_t batch_rows) {
  int64_t values = 0;  // of one position
  for (const HookSite& site : CircuitSourceSites(config)) values += ShapeOf(site.point, config).size();
  values += (sender_count + reader_count) * config.d_model;
  // A circuit's edges, here and as the pass sorts them.
  int64_t edges = 0;
  for (const Receiver& receiver : Receivers(config)) edges += SenderCount(receiver, config);
  return prompt_length * values * static_cast<int64_t>(sizeof(float)) + edges / 4 +
         MetricsBytes(config, metrics) + 3 * config.vocabulary_size * static_cast<int64_t>(sizeof(float)) +
         ScratchBytes(config, std::max(prompt_length, batch_rows)) - ScratchBytes(config, batch_rows);
}

}  // namespace mechinterp::engine
