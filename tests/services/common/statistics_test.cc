#include "services/common/statistics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "services/common/hash.h"

namespace mechinterp {
namespace {

TEST(WilsonInterval, MatchesPublishedAndClosedFormNumbers) {
  // All of n: the lower bound is n / (n + z^2).
  EXPECT_NEAR(WilsonInterval(15, 15).lower, 15 / (15 + 3.841458820694124), 1e-12);  // 0.796
  EXPECT_EQ(WilsonInterval(15, 15).upper, 1);
  EXPECT_EQ(WilsonInterval(0, 15).lower, 0);
  EXPECT_NEAR(WilsonInterval(0, 15).upper, 3.841458820694124 / (15 + 3.841458820694124), 1e-12);
  // Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29.
  EXPECT_NEAR(WilsonInterval(81, 263).lower, 0.2553, 5e-5);
  EXPECT_NEAR(WilsonInterval(81, 263).upper, 0.3662, 5e-5);
  EXPECT_NEAR(WilsonInterval(15, 148).lower, 0.0624, 5e-5);
  EXPECT_NEAR(WilsonInterval(15, 148).upper, 0.1605, 5e-5);
  EXPECT_NEAR(WilsonInterval(0, 20).upper, 0.1611, 5e-5);
  EXPECT_NEAR(WilsonInterval(1, 29).lower, 0.0061, 5e-5);
  EXPECT_NEAR(WilsonInterval(1, 29).upper, 0.1718, 5e-5);
}

TEST(WilsonInterval, SaysNothingWithoutTrials) {
  EXPECT_EQ(WilsonInterval(0, 0).lower, 0);
  EXPECT_EQ(WilsonInterval(0, 0).upper, 1);
}

TEST(BootstrapMeanInterval, IsNearTheNormalIntervalForManySamples) {
  std::vector<double> samples;
  for (int i = 0; i < 400; ++i) samples.push_back(i % 2);
  const Interval interval = BootstrapMeanInterval(samples, 7, 4000);
  const double half_width = 1.96 * 0.5 / std::sqrt(400);
  EXPECT_NEAR(interval.lower, 0.5 - half_width, 0.005);
  EXPECT_NEAR(interval.upper, 0.5 + half_width, 0.005);
}

TEST(BootstrapMeanInterval, IsReproducibleAndDependsOnTheSeed) {
  const std::vector<double> samples = {0.1, 0.9, -0.3, 0.4, 0.77, 0.2};
  const Interval first = BootstrapMeanInterval(samples, 1);
  EXPECT_EQ(first.lower, BootstrapMeanInterval(samples, 1).lower);
  EXPECT_EQ(first.upper, BootstrapMeanInterval(samples, 1).upper);
  EXPECT_NE(first.lower, BootstrapMeanInterval(samples, 2).lower);
  EXPECT_LT(first.lower, Mean(samples));
  EXPECT_GT(first.upper, Mean(samples));
}

TEST(BootstrapMeanInterval, HandlesOneSampleAndNone) {
  EXPECT_EQ(BootstrapMeanInterval({0.25}, 0).lower, 0.25);
  EXPECT_EQ(BootstrapMeanInterval({0.25}, 0).upper, 0.25);
  EXPECT_TRUE(std::isnan(BootstrapMeanInterval({}, 0).lower));
  EXPECT_EQ(BootstrapMeanInterval({0.5, 0.5, 0.5}, 0).upper, 0.5);
}

TEST(BootstrapClusteredMeanInterval, OfSingletonsIsTheOrdinaryOne) {
  const std::vector<double> samples = {0.1, 0.9, -0.3, 0.4, 0.77, 0.2};
  std::vector<std::vector<double>> clusters = {{}};
  for (const double sample : samples) clusters.push_back({sample});
  const Interval ordinary = BootstrapMeanInterval(samples, 5);
  const Interval clustered = BootstrapClusteredMeanInterval(clusters, 5);
  EXPECT_DOUBLE_EQ(clustered.lower, ordinary.lower);
  EXPECT_DOUBLE_EQ(clustered.upper, ordinary.upper);
}

TEST(BootstrapClusteredMeanInterval, KnowsThatCopiesTellNothingNew) {
  // 100 clusters of 25 equal samples: as wide as of 100 samples, not of 2500.
  std::vector<std::vector<double>> clusters;
  for (int i = 0; i < 100; ++i) clusters.emplace_back(25, i % 2);
  const Interval interval = BootstrapClusteredMeanInterval(clusters, 3, 4000);
  const double half_width = 1.96 * 0.5 / std::sqrt(100);
  EXPECT_NEAR(interval.lower, 0.5 - half_width, 0.01);
  EXPECT_NEAR(interval.upper, 0.5 + half_width, 0.01);
}

TEST(BootstrapClusteredMeanInterval, IsOfTheMeanOverAllSamples) {
  // 100 ones in clusters of one, 300 zeros in clusters of three: the mean is
  // 1/4; the mean of the clusters' means would be 1/2.
  std::vector<std::vector<double>> clusters;
  for (int i = 0; i < 100; ++i) clusters.insert(clusters.end(), {{1}, {0, 0, 0}});
  const Interval interval = BootstrapClusteredMeanInterval(clusters, 1);
  EXPECT_LT(interval.lower, 0.25);
  EXPECT_GT(interval.upper, 0.25);
  EXPECT_LT(interval.upper, 0.4);
}

TEST(BootstrapClusteredMeanInterval, HandlesOneClusterAndNone) {
  const std::vector<std::vector<double>> one = {{0, 1}};
  EXPECT_EQ(BootstrapClusteredMeanInterval(one, 0).upper, 0.5);
  EXPECT_TRUE(std::isnan(BootstrapClusteredMeanInterval({}, 0).lower));
}

// Student's own, of a table.
TEST(StudentQuantile975, IsTheTables) {
  EXPECT_NEAR(StudentQuantile975(1), 12.7062, 1e-4);
  EXPECT_NEAR(StudentQuantile975(2), 4.3027, 1e-4);
  EXPECT_NEAR(StudentQuantile975(3), 3.1824, 0.02);
  EXPECT_NEAR(StudentQuantile975(4), 2.7764, 4e-3);
  EXPECT_NEAR(StudentQuantile975(14), 2.1448, 1e-4);
  EXPECT_NEAR(StudentQuantile975(127), 1.9788, 1e-4);
}

TEST(NormalQuantile, InvertsTheDistribution) {
  EXPECT_NEAR(NormalQuantile(0.975), 1.959963984540054, 1e-12);
  EXPECT_NEAR(NormalQuantile(0.5), 0, 1e-12);
  EXPECT_NEAR(NormalCdf(-1), 0.15865525393145707, 1e-15);
}

// How often an interval has the true mean in it, of samples drawn anew each time.
template <typename Draw, typename IntervalOf>
double Coverage(int sample_count, double mean, const Draw& draw, const IntervalOf& interval_of) {
  constexpr int kTrials = 1200;
  SplitMix64 random(static_cast<uint64_t>(sample_count));
  int covered = 0;
  std::vector<double> samples(sample_count);
  for (int trial = 0; trial < kTrials; ++trial) {
    for (double& sample : samples) sample = draw(random);
    const Interval interval = interval_of(samples, static_cast<uint64_t>(trial));
    covered += interval.lower <= mean && mean <= interval.upper;
  }
  return static_cast<double>(covered) / kTrials;
}

double Uniform(SplitMix64& random) { return (static_cast<double>(random.Next() >> 11) + 0.5) * 0x1p-53; }
double Normal(SplitMix64& random) {  // Box and Muller 1958
  return std::sqrt(-2 * std::log(Uniform(random))) * std::cos(6.283185307179586 * Uniform(random));
}
// Of mean 1/3, with most of it near 0: as effects are of which a few are large.
double Skewed(SplitMix64& random) { return std::pow(Uniform(random), 2); }

Interval Percentile(const std::vector<double>& samples, uint64_t seed) {
  return BootstrapMeanInterval(samples, seed, 1000);
}
Interval Bca(const std::vector<double>& samples, uint64_t seed) {
  return BcaMeanInterval(samples, seed, 1000);
}

TEST(Intervals, CoverTheMeanAsOftenAsTheySay) {
  for (const int n : {15, 32, 128}) {
    for (const auto& interval : {Percentile, Bca}) {
      const double normal = Coverage(n, 0, Normal, interval);
      const double skewed = Coverage(n, 1.0 / 3, Skewed, interval);
      EXPECT_GT(std::min(normal, skewed), 0.93) << n << " " << normal << " " << skewed;
      EXPECT_LT(std::max(normal, skewed), 0.97) << n << " " << normal << " " << skewed;
    }
  }
}

// Of Wilson's exactly: the sum of the binomial probabilities of what covers, averaged over rates, as
// it swings from one to the next.
TEST(WilsonInterval, CoversTheRateAsOftenAsItSays) {
  for (const int n : {15, 32, 128}) {
    double sum = 0;
    int count = 0;
    for (double p = 0.05; p < 0.951; p += 0.01, ++count) {
      for (int k = 0; k <= n; ++k) {
        const Interval interval = WilsonInterval(k, n);
        const double log_probability = std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) +
                                       k * std::log(p) + (n - k) * std::log(1 - p);
        if (interval.lower <= p && p <= interval.upper) sum += std::exp(log_probability);
      }
    }
    EXPECT_NEAR(sum / count, 0.95, 0.01) << n;
  }
}

TEST(BcaMeanInterval, LeansTowardsTheLongTail) {
  std::vector<double> samples;
  for (int i = 1; i <= 20; ++i) samples.push_back(std::exp(0.3 * i) / 100);
  const Interval plain = BootstrapMeanInterval(samples, 3);
  const Interval leaning = BcaMeanInterval(samples, 3);
  EXPECT_GT(leaning.lower, plain.lower);
  EXPECT_GT(leaning.upper, plain.upper);
  EXPECT_EQ(BcaMeanInterval({0.5, 0.5, 0.5}, 0).upper, 0.5);
  EXPECT_EQ(BcaMeanInterval({0.25}, 0).lower, 0.25);
  EXPECT_TRUE(std::isnan(BcaMeanInterval({}, 0).lower));
}

TEST(AreaUnderRoc, CountsWinsAndHalfTheTies) {
  EXPECT_EQ(AreaUnderRoc({3, 4}, {1, 2}), 1);
  EXPECT_EQ(AreaUnderRoc({1, 2}, {3, 4}), 0);
  EXPECT_EQ(AreaUnderRoc({1, 2}, {1, 2}), 0.5);
  // 0.8 beats both, 0.4 one and ties with the other: 3.5 of 4.
  EXPECT_EQ(AreaUnderRoc({0.8, 0.4}, {0.4, 0.1}), 0.875);
  EXPECT_TRUE(std::isnan(AreaUnderRoc({}, {1})));
}

TEST(Quantile, InterpolatesAsNumpyDoes) {
  // numpy.percentile([1, 2, 4, 8], [0, 50, 90, 100])
  const std::vector<double> sorted = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(Quantile(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(Quantile(sorted, 0.5), 3);
  EXPECT_DOUBLE_EQ(Quantile(sorted, 0.9), 6.8);
  EXPECT_DOUBLE_EQ(Quantile(sorted, 1), 8);
  EXPECT_TRUE(std::isnan(Quantile({}, 0.5)));
}

TEST(Mean, OfSamples) {
  EXPECT_DOUBLE_EQ(Mean({1, 2, 6}), 3);
  EXPECT_TRUE(std::isnan(Mean({})));
}

}  // namespace
}  // namespace mechinterp
