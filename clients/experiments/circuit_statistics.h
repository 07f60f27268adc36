#ifndef CLIENTS_EXPERIMENTS_CIRCUIT_STATISTICS_H_
#define CLIENTS_EXPERIMENTS_CIRCUIT_STATISTICS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace mechinterp {

// What tells a circuit from noise. Pure functions, the same on every platform.

// Two-sided p-value of a mean against 0, by sign-flip permutation (Fisher 1935): the share of all
// assignments of signs to the samples whose mean is at least as large in size. All of them up to 20
// samples, else 20,000 drawn by `seed` and the samples' own. 1 for no samples.
double SignFlipPValue(absl::Span<const double> samples, uint64_t seed);

// Holm's step-down correction (Holm 1979) of p-values, in their order. In [0, 1].
std::vector<double> HolmAdjusted(absl::Span<const double> p_values);

// Spearman's rank correlation, ties by their mean rank. NaN where one of the two is constant, or there
// are fewer than two.
double SpearmanCorrelation(absl::Span<const double> a, absl::Span<const double> b);

// Indices of the `count` largest by size, largest first; ties in their order.
std::vector<int> LargestBySize(absl::Span<const double> values, int count);

// |a and b| / |a or b| (Jaccard 1912) of two sets, ascending without repetitions. 1 for two empty ones.
double JaccardIndex(absl::Span<const int> a, absl::Span<const int> b);

// Area under values over rising shares, by the trapezoid rule.
double TrapezoidArea(absl::Span<const double> shares, absl::Span<const double> values);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_CIRCUIT_STATISTICS_H_
