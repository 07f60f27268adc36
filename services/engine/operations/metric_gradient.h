#ifndef SERVICES_ENGINE_OPERATIONS_METRIC_GRADIENT_H_
#define SERVICES_ENGINE_OPERATIONS_METRIC_GRADIENT_H_

#include <functional>
#include <memory>

#include "absl/types/span.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {

// What an attribution is of: one of RunMetrics' numbers.
enum class MetricKind { kLogitDifference, kRefusalLogOdds, kKlFromClean };

// A metric of one row of logits [V], with its gradient. Thread-safe.
struct DifferentiableMetric {
  std::function<double(absl::Span<const float> logits)> value;
  // Writes every element of `gradient`. In double precision until it is written.
  std::function<void(absl::Span<const float> logits, absl::Span<float> gradient)> gradient;
};

// kLogitDifference wants both token sets, kRefusalLogOdds the refusal's; `options` as AsSets
// leaves them. `clean` is what kKlFromClean measures from, where it has no slope; null for the
// others.
DifferentiableMetric MakeMetric(MetricKind kind, const MetricOptions& options,
                                std::shared_ptr<const ReferenceDistribution> clean);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_METRIC_GRADIENT_H_
