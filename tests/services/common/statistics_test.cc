#include "services/common/statistics.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

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
