#ifndef SERVICES_COMMON_STATISTICS_H_
#define SERVICES_COMMON_STATISTICS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace mechinterp {

struct Interval {
  double lower = 0;
  double upper = 0;
};

// Wilson score interval of a binomial proportion (Wilson 1927), 95 %; [0, 1]
// when `total` is 0.
Interval WilsonInterval(int successes, int total);

// Percentile bootstrap interval of the mean (Efron 1979), 95 %, from
// `resample_count` resamples drawn by `seed`. One sample gives a point; none
// gives NaNs.
Interval BootstrapMeanInterval(absl::Span<const double> samples, uint64_t seed, int resample_count = 2000);

// The same for the mean over all samples of `clusters`, resampling whole
// clusters: samples of one cluster (the positions of a prompt) are not
// independent. Empty clusters are ignored.
Interval BootstrapClusteredMeanInterval(absl::Span<const std::vector<double>> clusters, uint64_t seed,
                                        int resample_count = 2000);

// Linear interpolation between order statistics, as numpy.percentile; `sorted`
// rises, `probability` is in [0, 1]. NaN when empty.
double Quantile(absl::Span<const double> sorted, double probability);

// NaN when empty.
double Mean(absl::Span<const double> samples);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_STATISTICS_H_
