#ifndef SERVICES_ENGINE_OPERATIONS_SWEEP_H_
#define SERVICES_ENGINE_OPERATIONS_SWEEP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/hook_plan.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {

// One prompt, run once for each of many plans.
struct SweepRequest {
  TokenizedPrompt prompt;
  std::vector<std::shared_ptr<const HookPlan>> plans;
  MetricOptions metrics;
  // Its clean run is effect 1.
  std::optional<TokenizedPrompt> source_prompt;
  // Edits in force in every run before its plan's, and in the clean run; may be null.
  std::shared_ptr<const HookPlan> base = nullptr;
};

struct SweepBaselines {
  RunMetrics clean;
  std::optional<RunMetrics> source;
};

struct SweepResult {
  int set_index = 0;  // in SweepRequest::plans
  RunMetrics metrics;
  std::optional<double> effect;
};

// How much was computed, in positions x layers (those that were entered midway too), and
// what one full forward pass for each plan would have cost.
struct SweepTotals {
  int64_t computed_token_layers = 0;
  int64_t naive_token_layers = 0;
};

// Called once before any result, then for each result as it is there. An error
// ends the sweep.
struct SweepSink {
  std::function<absl::Status(const SweepBaselines&)> on_baselines;
  std::function<absl::Status(const SweepResult&)> on_result;
};

// Runs the prompt clean once, keeping what patched runs start from and all keys and
// values. A patched run then enters at the first layer that its plan edits: at the
// block's beginning, after its attention (edits of z to mlp_pre) or before the down
// projection (mlp_post and later). It computes only the positions from the first edited
// one on: everything before is as in the clean run. Runs are packed into large batches,
// joining as the pass reaches where they enter. Results are those of full forward passes.
absl::StatusOr<SweepTotals> RunPatchSweep(RunContext& context, const SweepRequest& request,
                                          const SweepSink& sink);

// Bytes that it takes, for runs that begin at `entries` (PlanCompiler::EntryPoints), in
// batches of `batch_rows` rows. `source_length`: of the source prompt, 0 without one. A base's edits
// take as much again for each run of a batch (SweepBatchRuns), which is not counted here.
int64_t SweepBytes(const ModelConfig& config, int64_t prompt_length, int64_t source_length,
                   const std::vector<EntryPoint>& entries, const MetricOptions& metrics, int64_t batch_rows);
// Runs of its largest batch.
int64_t SweepBatchRuns(const ModelConfig& config, int64_t prompt_length,
                       const std::vector<EntryPoint>& entries, int64_t batch_rows);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_SWEEP_H_
