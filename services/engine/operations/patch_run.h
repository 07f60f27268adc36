#ifndef SERVICES_ENGINE_OPERATIONS_PATCH_RUN_H_
#define SERVICES_ENGINE_OPERATIONS_PATCH_RUN_H_

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {

struct PatchRun {
  RunMetrics clean;
  RunMetrics patched;
  std::optional<Generation> clean_continuation;
  std::optional<Generation> patched_continuation;
};

// Runs a prompt clean and with a plan, and compares; continues both when asked.
absl::StatusOr<PatchRun> RunWithPatch(RunContext& context, const TokenizedPrompt& prompt,
                                      std::shared_ptr<const HookPlan> plan, const MetricOptions& metrics,
                                      const std::optional<SamplingOptions>& continuation);

// Bytes that RunWithPatch takes: the clean and the patched run, each continued.
int64_t PatchRunBytes(const ModelConfig& config, int64_t prompt_length, const MetricOptions& metrics,
                      const std::optional<SamplingOptions>& continuation);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_PATCH_RUN_H_
