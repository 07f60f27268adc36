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

// Percentile bootstrap interval of the mean (Efron 1979), 95 %, from `resample_count` resamples drawn
// by `seed`. Its quantiles lie further out the fewer samples there are, so that of normal ones it is as
// wide as Student's ("expanded percentile"; Hesterberg 2015): the plain one covers 92 % at n = 15. One
// sample gives a point; none gives NaNs.
Interval BootstrapMeanInterval(absl::Span<const double> samples, uint64_t seed, int resample_count = 2000);

// Bias-corrected and accelerated bootstrap interval of the mean (BCa; Efron 1987), 95 %: as
// BootstrapMeanInterval, moved where the resamples' means lie to one side or the samples are skewed.
Interval BcaMeanInterval(absl::Span<const double> samples, uint64_t seed, int resample_count = 2000);

// BootstrapMeanInterval for the mean over all samples of `clusters`, resampling whole clusters: samples
// of one cluster (the positions of a prompt) are not independent. Empty clusters are ignored.
Interval BootstrapClusteredMeanInterval(absl::Span<const std::vector<double>> clusters, uint64_t seed,
                                        int resample_count = 2000);

// Linear interpolation between order statistics, as numpy.percentile; `sorted`
// rises, `probability` is in [0, 1]. NaN when empty.
double Quantile(absl::Span<const double> sorted, double probability);

// NaN when empty.
double Mean(absl::Span<const double> samples);

// Cumulative distribution of the standard normal, and its inverse at p in (0, 1).
double NormalCdf(double x);
double NormalQuantile(double p);

// The 0.975 quantile of Student's distribution with so many degrees of freedom (Abramowitz and Stegun
// 26.7.5, within 1 % from 3 on; exact for 1 and 2).
double StudentQuantile975(int degrees_of_freedom);

// Area under the ROC curve: how often a positive's score is above a negative's, ties counted half
// (Mann and Whitney 1947). NaN where one of the two has none.
double AreaUnderRoc(absl::Span<const double> positives, absl::Span<const double> negatives);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_STATISTICS_H_
