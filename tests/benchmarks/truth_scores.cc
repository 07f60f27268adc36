#include "tests/benchmarks/truth_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace mechinterp::benchmarks {

void Counts::Add(const Counts& other) {
  found_true += other.found_true;
  found_false += other.found_false;
  missed += other.missed;
  auroc_sum += other.auroc_sum;
  auroc_count += other.auroc_count;
}

double Counts::precision() const {
  const int found = found_true + found_false;
  return found == 0 ? 1 : static_cast<double>(found_true) / found;
}

double Counts::recall() const {
  const int there = found_true + missed;
  return there == 0 ? 1 : static_cast<double>(found_true) / there;
}

double Counts::auroc() const {
  return auroc_count == 0 ? std::numeric_limits<double>::quiet_NaN() : auroc_sum / auroc_count;
}

double Auroc(absl::Span<const double> scores, const std::vector<bool>& truth) {
  std::vector<std::pair<double, bool>> sorted;
  for (size_t i = 0; i < scores.size(); ++i) sorted.emplace_back(std::abs(scores[i]), truth[i]);
  std::sort(sorted.begin(), sorted.end());
  double wins = 0, negatives = 0, positives = 0;
  for (size_t begin = 0; begin < sorted.size();) {
    size_t end = begin;
    double here[2] = {0, 0};
    while (end < sorted.size() && sorted[end].first == sorted[begin].first) ++here[sorted[end++].second];
    wins += here[1] * (negatives + here[0] / 2);
    negatives += here[0];
    positives += here[1];
    begin = end;
  }
  return positives * negatives > 0 ? wins / (positives * negatives)
                                   : std::numeric_limits<double>::quiet_NaN();
}

Counts Judge(absl::Span<const double> scores, const std::vector<bool>& truth, double least) {
  Counts counts;
  for (size_t i = 0; i < scores.size(); ++i) {
    const bool found = std::abs(scores[i]) >= least;
    counts.found_true += found && truth[i];
    counts.found_false += found && !truth[i];
    counts.missed += !found && truth[i];
  }
  if (const double auroc = Auroc(scores, truth); !std::isnan(auroc)) {
    counts.auroc_sum = auroc;
    counts.auroc_count = 1;
  }
  return counts;
}

}  // namespace mechinterp::benchmarks
