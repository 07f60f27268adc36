#include "clients/experiments/comparison_measures.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace mechinterp {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// KL of two logit vectors.
double Kl(const std::vector<float>& reference, const std::vector<float>& other) {
  return KlDivergence(NextTokenDistribution(reference), NextTokenDistribution(other));
}

std::vector<float> Logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(NextTokenDistribution, IsTheLogSoftmax) {
  const std::vector<float> logits = {0, std::log(2.0f), 0, std::log(4.0f)};  // 1 : 2 : 1 : 4
  const NextTokenDistribution distribution(logits);
  EXPECT_NEAR(distribution.LogProbability(0), std::log(1 / 8.0), 1e-7);
  EXPECT_NEAR(distribution.LogProbability(3), std::log(4 / 8.0), 1e-7);
  EXPECT_EQ(distribution.top_token_id(), 3u);
}

TEST(NextTokenDistribution, DoesNotOverflowAndTakesTheFirstOfEqualTokens) {
  const std::vector<float> logits = {-1000, 1000, 1000};
  const NextTokenDistribution distribution(logits);
  EXPECT_EQ(distribution.top_token_id(), 1u);
  EXPECT_DOUBLE_EQ(distribution.LogProbability(2), -std::log(2.0));
  EXPECT_DOUBLE_EQ(distribution.LogProbability(0), -2000 - std::log(2.0));
}

TEST(KlDivergence, OfKnownDistributions) {
  // p = (1/2, 1/4, 1/4) and q = (1/4, 1/4, 1/2): 1/2 log 2 - 1/4 log 2.
  EXPECT_NEAR(Kl(Logs({0.5, 0.25, 0.25}), Logs({0.25, 0.25, 0.5})), 0.25 * std::log(2.0), 1e-7);
  // A fair and an unfair coin; not symmetric.
  const double forward = 0.5 * std::log(0.5 / 0.9) + 0.5 * std::log(0.5 / 0.1);
  const double backward = 0.9 * std::log(0.9 / 0.5) + 0.1 * std::log(0.1 / 0.5);
  EXPECT_NEAR(Kl(Logs({0.5, 0.5}), Logs({0.9, 0.1})), forward, 1e-7);
  EXPECT_NEAR(Kl(Logs({0.9, 0.1}), Logs({0.5, 0.5})), backward, 1e-7);
}

TEST(KlDivergence, IsZeroForEqualDistributionsAndKnowsNoOffset) {
  const std::vector<float> logits = {1.5f, -2, 0.25f, 8};
  EXPECT_EQ(Kl(logits, logits), 0);
  EXPECT_NEAR(Kl(logits, {2.5f, -1, 1.25f, 9}), 0, 1e-15);
}

TEST(KlDivergence, ResolvesCloseDistributions) {
  // Logits e apart over n tokens, half up and half down: e^2 / 2 + O(e^4).
  const float e = std::ldexp(1.0f, -20);  // Added exactly to 1.
  std::vector<float> reference(1000, 1);
  std::vector<float> other;
  for (int i = 0; i < 1000; ++i) other.push_back(i % 2 == 0 ? 1 + e : 1 - e);
  const double expected = static_cast<double>(e) * e / 2;  // 4.5e-13
  EXPECT_NEAR(Kl(reference, other), expected, 1e-3 * expected);
}

TEST(KlDivergence, OfImpossibleTokens) {
  // Only possible in the other: log (1 / (1/2)). Only in the reference: infinite.
  EXPECT_NEAR(Kl({0, -kInfinity}, {0, 0}), std::log(2.0), 1e-15);
  EXPECT_EQ(Kl({0, 0}, {0, -kInfinity}), kInfinity);
}

TEST(RelativeError, IsTheNormOfTheDifferenceOverTheNorm) {
  const std::vector<float> reference = {3, 4};
  EXPECT_DOUBLE_EQ(RelativeError(reference, {3, 4}), 0);
  EXPECT_DOUBLE_EQ(RelativeError(reference, {3, 5}), 1 / 5.0);
  EXPECT_DOUBLE_EQ(RelativeError(reference, {0, 0}), 1);
  EXPECT_DOUBLE_EQ(RelativeError(reference, {-3, -4}), 2);
}

TEST(RelativeError, OfZeroVectors) {
  const std::vector<float> zero = {0, 0};
  EXPECT_EQ(RelativeError(zero, zero), 0);
  EXPECT_EQ(RelativeError(zero, {0, 1}), kInfinity);
}

TEST(RelativeError, DoesNotOverflowInSinglePrecision) {
  EXPECT_NEAR(RelativeError({3e30f, 4e30f}, {3e30f, 0}), 0.8, 1e-7);
}

}  // namespace
}  // namespace mechinterp
