#ifndef SERVICES_COMMON_STATISTICS_H_
#define SERVICES_COMMON_STATISTICS_H_

#include <cstdint>

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

// NaN when empty.
double Mean(absl::Span<const double> samples);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_STATISTICS_H_
