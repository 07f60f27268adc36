#include "services/engine/operations/patch_run.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "services/common/status_macros.h"
#include "services/engine/operations/run_metrics.h"

namespace mechinterp::engine {
namespace {

absl::StatusOr<RunMetrics> Measure(RunContext& context, const Prefilled& run,
                                   const ReferenceDistribution& clean, const MetricOptions& options) {
  return MeasureRun(context, {run.prompt, run.plan, run.cache, run.logits.values}, &clean, options);
}

// What the runs are compared with is let go of before they are continued.
absl::Status MeasureBoth(RunContext& context, const Prefilled& clean, const Prefilled& patched,
                         const MetricOptions& options, PatchRun& result) {
  const ReferenceDistribution distribution(clean.logits.values);
  ABSTRACT_ASSIGN_OR_RETURN(result.clean, Measure(context, clean, distribution, options));
  ABSTRACT_ASSIGN_OR_RETURN(result.patched, Measure(context, patched, distribution, options));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PatchRun> RunWithPatch(RunContext& context, const TokenizedPrompt& prompt,
                                      std::shared_ptr<const HookPlan> plan, const MetricOptions& metrics,
                                      const std::optional<SamplingOptions>& continuation) {
  const int new_tokens = continuation ? continuation->max_new_tokens : 0;
  const PrefillRequest requests[] = {{prompt, nullptr, new_tokens}, {prompt, std::move(plan), new_tokens}};
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<Prefilled> runs, Prefill(context, requests));
  Prefilled& clean = runs[0];
  Prefilled& patched = runs[1];
  PatchRun result;
  ABSTRACT_RETURN_IF_ERROR(MeasureBoth(context, clean, patched, metrics, result));
  if (continuation) {
    ABSTRACT_ASSIGN_OR_RETURN(result.clean_continuation, Continue(context, clean, *continuation, nullptr));
    ABSTRACT_ASSIGN_OR_RETURN(result.patched_continuation,
                              Continue(context, patched, *continuation, nullptr));
  }
  return result;
}

int64_t PatchRunBytes(const ModelConfig& config, int64_t prompt_length, const MetricOptions& metrics,
                      const std::optional<SamplingOptions>& continuation) {
  SamplingOptions none;
  none.max_new_tokens = 0;
  const SamplingOptions sampling = continuation.value_or(none);
  // Measuring and continuing come one after the other.
  const int64_t step =
      std::max(MetricsBytes(config, metrics), SamplerBytes(sampling, config.vocabulary_size));
  return 2 * GenerationBytes(config, prompt_length, sampling.max_new_tokens) + step;
}

}  // namespace mechinterp::engine
