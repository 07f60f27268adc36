#ifndef SERVICES_ENGINE_OPERATIONS_METRIC_GRADIENT_H_
#define SERVICES_ENGINE_OPERATIONS_METRIC_GRADIENT_H_

#include <functional>
#include <memory>

#include "absl/types/span.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {

// What an attribution is of: one of RunMetrics' numbers; or the refusal openings' log-probability, less
// the compliance openings' where there are any.
enum class MetricKind { kLogitDifference, kRefusalLogOdds, kKlFromClean, kOpenings };

// A metric of one row of logits [V], with its gradient; nothing where it is no function of one row.
// Thread-safe.
struct DifferentiableMetric {
  std::function<double(absl::Span<const float> logits)> value;
  // Writes every element of `gradient`. In double precision until it is written.
  std::function<void(absl::Span<const float> logits, absl::Span<float> gradient)> gradient;
};

// kLogitDifference wants both token sets, kRefusalLogOdds the refusal's; `options` as AsSets
// leaves them. `clean` is what kKlFromClean measures from, where it has no slope; null for the
// others. Not for kOpenings.
DifferentiableMetric MakeMetric(MetricKind kind, const MetricOptions& options,
                                std::shared_ptr<const ReferenceDistribution> clean);

// kOpenings of a run whose openings were measured.
double OpeningsMetric(const RunMetrics& metrics);

// What one opening has in the gradient of the log-probability of its list, `log_total`: with respect to
// the logits [opening, V] of the rows that tell its tokens, the prompt's last and those of all its tokens
// but the last. Times `sign`. Writes every element.
void OpeningGradient(const std::vector<TokenId>& opening, double sign, double log_total,
                     absl::Span<const float> logits, absl::Span<float> gradient);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_METRIC_GRADIENT_H_
