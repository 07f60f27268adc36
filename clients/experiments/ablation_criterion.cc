#include "clients/experiments/ablation_criterion.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

const v1::AblationPoint* FindTop(const v1::AblationCurve& curve, int component_count) {
  for (const v1::AblationPoint& point : curve.top()) {
    if (static_cast<int>(point.component_count()) == component_count) return &point;
  }
  return nullptr;
}

std::optional<double> RandomRate(const v1::AblationCurve& curve, int component_count) {
  for (const v1::RandomControlPoint& point : curve.random()) {
    if (static_cast<int>(point.component_count()) == component_count) return point.harmful().rate();
  }
  return std::nullopt;
}

// Percentage points, free of the last bits' noise: a drop of 30 is not more
// than 30.
double DropPoints(double baseline, double rate) { return std::round(1e11 * (baseline - rate)) / 1e9; }

// How far the top's drop exceeds the random sets'.
double Margin(const v1::SuccessCriterion& criterion) {
  return criterion.top_drop_points() - criterion.random_drop_points();
}

}  // namespace

v1::SuccessCriterion JudgeCriterion(double threshold_points, int component_count, double baseline, double top,
                                    std::optional<double> random) {
  v1::SuccessCriterion criterion;
  criterion.set_threshold_points(threshold_points);
  criterion.set_component_count(static_cast<uint32_t>(component_count));
  criterion.set_top_drop_points(DropPoints(baseline, top));
  criterion.set_top_exceeds(criterion.top_drop_points() > threshold_points);
  if (random.has_value()) {
    criterion.set_random_drop_points(DropPoints(baseline, *random));
    criterion.set_random_stays_below(criterion.random_drop_points() < threshold_points);
  }
  criterion.set_met(criterion.top_exceeds() && criterion.random_stays_below());
  return criterion;
}

absl::StatusOr<v1::SuccessCriterion> CriterionAt(const v1::AblationCurve& curve, int component_count,
                                                 double threshold_points) {
  const v1::AblationPoint* const baseline = FindTop(curve, 0);
  const v1::AblationPoint* const top = FindTop(curve, component_count);
  if (baseline == nullptr || top == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the criterion is to be judged at ", component_count,
                                                   " components, which were not ablated; add it to --top-k"));
  }
  return JudgeCriterion(threshold_points, component_count, baseline->harmful().rate(), top->harmful().rate(),
                        RandomRate(curve, component_count));
}

absl::StatusOr<v1::SuccessCriterion> BestCriterion(const v1::AblationCurve& curve, int largest,
                                                   double threshold_points) {
  std::optional<v1::SuccessCriterion> best;
  for (const v1::AblationPoint& point : curve.top()) {
    const int count = static_cast<int>(point.component_count());
    if (count < 1 || count > largest || !RandomRate(curve, count).has_value()) continue;
    ABSTRACT_ASSIGN_OR_RETURN(const v1::SuccessCriterion criterion,
                              CriterionAt(curve, count, threshold_points));
    if (!best.has_value() || Margin(criterion) > Margin(*best)) best = criterion;
  }
  if (best.has_value()) return *best;
  return absl::InvalidArgumentError(
      absl::StrCat("no set of 1 to ", largest,
                   " components was ablated with a random control beside it; give "
                   "--top-k a smaller number"));
}

}  // namespace mechinterp
