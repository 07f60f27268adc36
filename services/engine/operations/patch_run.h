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

// Scores the openings after a prompt whose keys and values are in `cache` and
// whose last row of logits is given; sets the metrics' opening fields. The
// plan's edits at generated positions apply.
absl::Status ScoreOpenings(RunContext& context, const TokenizedPrompt& prompt,
                           std::shared_ptr<const HookPlan> plan, std::shared_ptr<const KvCache> cache,
                           absl::Span<const float> last_logits, const MetricOptions& options,
                           RunMetrics& metrics);

// Bytes of the logits in which the openings are read: of each, all tokens but the first.
int64_t OpeningBytes(const ModelConfig& config, const MetricOptions& metrics);

// Bytes that RunWithPatch takes: the clean and the patched run, each continued.
int64_t PatchRunBytes(const ModelConfig& config, int64_t prompt_length, const MetricOptions& metrics,
                      const std::optional<SamplingOptions>& continuation);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_PATCH_RUN_H_
