// Against closed forms and published examples.

#include "clients/experiments/circuit_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "clients/experiments/circuit_evaluation.h"

namespace mechinterp {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

TEST(SignFlip, CountsEveryAssignmentOfSigns) {
  // Only all-positive and all-negative are as large: 2 of 2^n.
  EXPECT_DOUBLE_EQ(SignFlipPValue({1, 2, 3}, 0), 2.0 / 8);
  EXPECT_DOUBLE_EQ(SignFlipPValue({-1, -2, -3, -4, -5}, 0), 2.0 / 32);
  // |1 + 2 - 3| = 0: every assignment is as large.
  EXPECT_DOUBLE_EQ(SignFlipPValue({1, 2, -3}, 0), 1);
  // Sums 1 + 2 - 4 = -1 in size: of {7, 5, 3, 1}, two signs each, all are.
  EXPECT_DOUBLE_EQ(SignFlipPValue({1, 2, -4}, 0), 1);
  EXPECT_DOUBLE_EQ(SignFlipPValue({1, 2, 4}, 0), 2.0 / 8);
  EXPECT_DOUBLE_EQ(SignFlipPValue({}, 0), 1);
  std::vector<double> some(16, 0.1);
  for (int i = 0; i < 4; ++i) some[i] = -0.1;
  // P(|S| >= 8) of 16 fair signs, in tenths that add up in another way each time.
  EXPECT_DOUBLE_EQ(SignFlipPValue(some, 0), 2 * (1 + 16 + 120 + 560 + 1820) / 65536.0);
}

TEST(SignFlip, OfManySamplesIsDrawnAndTheSameForASeed) {
  const std::vector<double> ones(40, 1.0);
  EXPECT_DOUBLE_EQ(SignFlipPValue(ones, 1), 1.0 / 20'001);  // 2^-39 is never drawn
  std::vector<double> noise;
  for (int i = 0; i < 40; ++i) noise.push_back(i % 2 == 0 ? 1 : -1);
  EXPECT_GT(SignFlipPValue(noise, 1), 0.99);
  std::vector<double> some(22, 1.0);
  for (int i = 0; i < 7; ++i) some[i] = -1;
  // P(|S| >= 8) of 22 fair signs: twice that of at most 7 of them being -1.
  const double ways = 1 + 22 + 231 + 1540 + 7315 + 26334 + 74613 + 170544;
  EXPECT_THAT(SignFlipPValue(some, 7), DoubleNear(2 * ways / (1 << 22), 0.01));
  EXPECT_EQ(SignFlipPValue(some, 7), SignFlipPValue(some, 7));
}

TEST(Holm, IsThePublishedExample) {
  // 0.01 * 4, 0.04 -> max(., 0.03 * 2) ..., as R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
  EXPECT_THAT(HolmAdjusted({0.01, 0.04, 0.03, 0.005}),
              ElementsAre(DoubleNear(0.03, 1e-12), DoubleNear(0.06, 1e-12), DoubleNear(0.06, 1e-12),
                          DoubleNear(0.02, 1e-12)));
  EXPECT_THAT(HolmAdjusted({0.9, 0.8}), ElementsAre(1, 1));
}

TEST(Spearman, IsOfRanks) {
  EXPECT_DOUBLE_EQ(SpearmanCorrelation({1, 2, 3, 4}, {10, 100, 1000, 10000}), 1);
  EXPECT_DOUBLE_EQ(SpearmanCorrelation({1, 2, 3, 4}, {4, 3, 2, 1}), -1);
  // Without ties 1 - 6 sum d^2 / (n (n^2 - 1)): ranks differ by 1, 1, 1, 1, 0.
  EXPECT_DOUBLE_EQ(SpearmanCorrelation({1, 2, 3, 4, 5}, {2, 1, 4, 3, 5}), 1 - 6.0 * 4 / (5 * 24));
  // With a tie, Pearson's of ranks 0.5, 0.5, 2 and 0, 1, 2.
  EXPECT_THAT(SpearmanCorrelation({1, 1, 2}, {1, 2, 3}), DoubleNear(std::sqrt(0.75), 1e-12));
  EXPECT_TRUE(std::isnan(SpearmanCorrelation({1, 1}, {1, 2})));
  EXPECT_TRUE(std::isnan(SpearmanCorrelation({1}, {1})));
}

TEST(Largest, AreBySizeThenInOrder) {
  EXPECT_THAT(LargestBySize({1, -5, 5, 2}, 3), ElementsAre(1, 2, 3));
  EXPECT_THAT(LargestBySize({1}, 3), ElementsAre(0));
}

TEST(Jaccard, IsSharedOverAll) {
  EXPECT_DOUBLE_EQ(JaccardIndex({1, 2, 3}, {2, 3, 4}), 0.5);
  EXPECT_DOUBLE_EQ(JaccardIndex({1}, {2}), 0);
  EXPECT_DOUBLE_EQ(JaccardIndex({}, {}), 1);
}

TEST(Trapezoid, IsTheAreaOfItsSegments) {
  EXPECT_DOUBLE_EQ(TrapezoidArea({0, 0.5, 1}, {0, 1, 1}), 0.75);
  EXPECT_DOUBLE_EQ(TrapezoidArea({0.5}, {3}), 0);
}

// Of two pairs three of four resamples have the larger one's edges, and so 10 of 16 pairs of resamples are
// alike.
TEST(StabilityOf, OfMoreResamplesThanAreComparedIsTheSame) {
  CircuitScores scores;
  scores.mean_edges.resize(40);
  scores.edges.assign(2, std::vector<float>(40));
  for (int i = 0; i < 10; ++i) scores.edges[0][i] = 2, scores.edges[1][10 + i] = 1;
  for (const int resamples : {200, kMostResamples}) {
    const v1::CircuitStability stability = StabilityOf(scores, 2, 10, resamples, 7);
    EXPECT_NEAR(stability.mean_jaccard(), 0.625, resamples == 200 ? 0.05 : 0.02);
    EXPECT_EQ(stability.low_jaccard(), 0);
  }
}

}  // namespace
}  // namespace mechinterp
