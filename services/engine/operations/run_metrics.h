#ifndef SERVICES_ENGINE_OPERATIONS_RUN_METRICS_H_
#define SERVICES_ENGINE_OPERATIONS_RUN_METRICS_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/engine/forward/executor.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {

class KvCache;

// A prompt that has been run, as far as its metrics need it.
struct MeasuredRun {
  const TokenizedPrompt& prompt;
  std::shared_ptr<const HookPlan> plan;  // may be null
  std::shared_ptr<const KvCache> cache;  // of the prompt at least; null when no openings are scored
  absl::Span<const float> last_logits;   // [V], at the prompt's last position
};

// All that `options` asks for at the prompt's last position; openings take a pass of
// their own, in which the plan's edits at generated positions apply. `clean` is what
// the KL divergence is taken from; null: it stays unset.
absl::StatusOr<RunMetrics> MeasureRun(RunContext& context, const MeasuredRun& run,
                                      const ReferenceDistribution* clean, const MetricOptions& options);

// Bytes of the logits in which the openings are read: of each, all tokens but the first.
int64_t OpeningBytes(const ModelConfig& config, const MetricOptions& options);

// Bytes that MeasureRun takes, a distribution to compare with among them.
int64_t MetricsBytes(const ModelConfig& config, const MetricOptions& options);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_RUN_METRICS_H_
