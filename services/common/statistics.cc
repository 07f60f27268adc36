#include "services/common/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "services/common/hash.h"

namespace mechinterp {
namespace {

constexpr double kNormalQuantile975 = 1.959963984540054;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Uniform in [0, bound), by rejection.
uint64_t DrawBelow(uint64_t bound, SplitMix64& random) {
  const uint64_t unbiased_end = std::numeric_limits<uint64_t>::max() / bound * bound;
  while (true) {
    const uint64_t value = random.Next();
    if (value < unbiased_end) return value % bound;
  }
}

std::vector<double> ResampledMeans(absl::Span<const double> samples, uint64_t seed, int resample_count) {
  SplitMix64 random(seed);
  std::vector<double> means(resample_count);
  for (double& mean : means) {
    double sum = 0;
    for (size_t i = 0; i < samples.size(); ++i) sum += samples[DrawBelow(samples.size(), random)];
    mean = sum / static_cast<double>(samples.size());
  }
  return means;
}

// The standard normal's quantile that an interval of so many samples reaches to: a resample's mean
// varies by the samples' own deviation, with n in its denominator for n - 1, and the estimate of that
// deviation varies too.
double ExpandedQuantile(size_t sample_count) {
  const auto n = static_cast<double>(sample_count);
  return std::sqrt(n / (n - 1)) * StudentQuantile975(static_cast<int>(sample_count) - 1);
}

// Where 95 % of the means of so many samples (or clusters) lie. Sorts them.
Interval MiddleOf(std::vector<double>& means, size_t sample_count) {
  std::sort(means.begin(), means.end());
  const double tail = NormalCdf(-ExpandedQuantile(sample_count));
  return {Quantile(means, tail), Quantile(means, 1 - tail)};
}

}  // namespace

Interval WilsonInterval(int successes, int total) {
  if (total <= 0) return {0, 1};
  const double n = total;
  const double p = successes / n;
  const double z2 = kNormalQuantile975 * kNormalQuantile975;
  const double center = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half_width = kNormalQuantile975 * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n);
  // The bounds are exactly 0 and 1 there; rounding must not say otherwise.
  return {successes == 0 ? 0 : center - half_width, successes == total ? 1 : center + half_width};
}

Interval BootstrapMeanInterval(absl::Span<const double> samples, uint64_t seed, int resample_count) {
  if (samples.empty() || resample_count < 1) return {kNaN, kNaN};
  if (samples.size() == 1) return {samples[0], samples[0]};
  std::vector<double> means = ResampledMeans(samples, seed, resample_count);
  return MiddleOf(means, samples.size());
}

Interval BcaMeanInterval(absl::Span<const double> samples, uint64_t seed, int resample_count) {
  if (samples.empty() || resample_count < 1) return {kNaN, kNaN};
  const double mean = Mean(samples);
  // Of the jackknife's means, whose deviations are as the samples' own.
  double squares = 0, cubes = 0;
  for (const double sample : samples) {
    const double deviation = sample - mean;
    squares += deviation * deviation;
    cubes += deviation * deviation * deviation;
  }
  if (squares == 0) return {mean, mean};
  const double acceleration = cubes / (6 * std::pow(squares, 1.5));

  std::vector<double> means = ResampledMeans(samples, seed, resample_count);
  std::sort(means.begin(), means.end());
  const auto below = std::lower_bound(means.begin(), means.end(), mean) - means.begin();
  const auto not_above = std::upper_bound(means.begin(), means.end(), mean) - means.begin();
  // Within (0, 1), however few resamples there are.
  const double share = (0.5 * static_cast<double>(below + not_above) + 0.5) / (resample_count + 1);
  const double bias = NormalQuantile(share);
  const auto bound = [&](double quantile) {
    const double shifted = bias + quantile;
    return Quantile(means, NormalCdf(bias + shifted / (1 - acceleration * shifted)));
  };
  const double reach = ExpandedQuantile(samples.size());
  return {bound(-reach), bound(reach)};
}

Interval BootstrapClusteredMeanInterval(absl::Span<const std::vector<double>> clusters, uint64_t seed,
                                        int resample_count) {
  struct Cluster {
    double sum;
    double size;
  };
  std::vector<Cluster> filled;
  for (const std::vector<double>& cluster : clusters) {
    if (cluster.empty()) continue;
    filled.push_back(
        {std::accumulate(cluster.begin(), cluster.end(), 0.0), static_cast<double>(cluster.size())});
  }
  if (filled.empty() || resample_count < 1) return {kNaN, kNaN};
  SplitMix64 random(seed);
  std::vector<double> means(resample_count);
  for (double& mean : means) {
    Cluster total{0, 0};
    for (size_t i = 0; i < filled.size(); ++i) {
      const Cluster& drawn = filled[DrawBelow(filled.size(), random)];
      total.sum += drawn.sum;
      total.size += drawn.size;
    }
    mean = total.sum / total.size;
  }
  return MiddleOf(means, filled.size());
}

double Quantile(absl::Span<const double> sorted, double probability) {
  if (sorted.empty()) return kNaN;
  const double rank = probability * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], rank - static_cast<double>(below));
}

double Mean(absl::Span<const double> samples) {
  if (samples.empty()) return kNaN;
  return std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
}

double StudentQuantile975(int degrees_of_freedom) {
  if (degrees_of_freedom <= 1) return 12.706204736432095;
  if (degrees_of_freedom == 2) return 4.302652729911275;
  const double z = kNormalQuantile975, n = degrees_of_freedom;
  const double z2 = z * z;
  const double g1 = z * (z2 + 1) / 4;
  const double g2 = z * ((5 * z2 + 16) * z2 + 3) / 96;
  const double g3 = z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384;
  const double g4 = z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160;
  return z + (g1 + (g2 + (g3 + g4 / n) / n) / n) / n;
}

double NormalCdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

double NormalQuantile(double p) {
  double low = -40, high = 40;  // where the distribution is 0 and 1
  for (int halving = 0; halving < 100; ++halving) {
    const double middle = low + (high - low) / 2;
    (NormalCdf(middle) < p ? low : high) = middle;
  }
  return high;
}

double AreaUnderRoc(absl::Span<const double> positives, absl::Span<const double> negatives) {
  if (positives.empty() || negatives.empty()) return kNaN;
  std::vector<double> sorted(negatives.begin(), negatives.end());
  std::sort(sorted.begin(), sorted.end());
  double wins = 0;
  for (const double positive : positives) {
    const auto below = std::lower_bound(sorted.begin(), sorted.end(), positive) - sorted.begin();
    const auto not_above = std::upper_bound(sorted.begin(), sorted.end(), positive) - sorted.begin();
    wins += 0.5 * static_cast<double>(below + not_above);
  }
  return wins / (static_cast<double>(positives.size()) * static_cast<double>(negatives.size()));
}

}  // namespace mechinterp
