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

// Where 95 % of the means lie. Sorts them.
Interval MiddleOf(std::vector<double>& means) {
  std::sort(means.begin(), means.end());
  return {Quantile(means, 0.025), Quantile(means, 0.975)};
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
  SplitMix64 random(seed);
  std::vector<double> means(resample_count);
  for (double& mean : means) {
    double sum = 0;
    for (size_t i = 0; i < samples.size(); ++i) sum += samples[DrawBelow(samples.size(), random)];
    mean = sum / static_cast<double>(samples.size());
  }
  return MiddleOf(means);
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
  return MiddleOf(means);
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

}  // namespace mechinterp
