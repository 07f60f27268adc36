#ifndef CLIENTS_EXPERIMENTS_ABLATION_CRITERION_H_
#define CLIENTS_EXPERIMENTS_ABLATION_CRITERION_H_

#include <optional>

#include "absl/status/statusor.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// The study's claim, judged. Pure functions. `baseline`, `top` and `random` are
// refusal rates of harmful prompts; without `random` the claim is not met.
v1::SuccessCriterion JudgeCriterion(double threshold_points, int component_count, double baseline, double top,
                                    std::optional<double> random);

// The criterion at `component_count`; InvalidArgument when the curve has no such
// point.
absl::StatusOr<v1::SuccessCriterion> CriterionAt(const v1::AblationCurve& curve, int component_count,
                                                 double threshold_points);

// The criterion at the number of components in [1, largest] where the top's drop
// exceeds the random sets' by most; the smallest such number.
// InvalidArgument when the curve has no point there.
absl::StatusOr<v1::SuccessCriterion> BestCriterion(const v1::AblationCurve& curve, int largest,
                                                   double threshold_points);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_ABLATION_CRITERION_H_
