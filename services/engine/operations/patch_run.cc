#include "services/engine/operations/patch_run.h"

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

}  // namespace

absl::StatusOr<PatchRun> RunWithPatch(RunContext& context, const TokenizedPrompt& prompt,
                                      std::shared_ptr<const HookPlan> plan, const MetricOptions& metrics,
                                      const std::optional<SamplingOptions>& continuation) {
  const PrefillRequest requests[] = {{prompt, nullptr}, {prompt, std::move(plan)}};
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<Prefilled> runs, Prefill(context, requests));
  Prefilled& clean = runs[0];
  Prefilled& patched = runs[1];
  PatchRun result;
  const ReferenceDistribution distribution(clean.logits.values);
  ABSTRACT_ASSIGN_OR_RETURN(result.clean, Measure(context, clean, distribution, metrics));
  ABSTRACT_ASSIGN_OR_RETURN(result.patched, Measure(context, patched, distribution, metrics));
  if (continuation) {
    ABSTRACT_ASSIGN_OR_RETURN(result.clean_continuation, Continue(context, clean, *continuation, nullptr));
    ABSTRACT_ASSIGN_OR_RETURN(result.patched_continuation,
                              Continue(context, patched, *continuation, nullptr));
  }
  return result;
}

}  // namespace mechinterp::engine
