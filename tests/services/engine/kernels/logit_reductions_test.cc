#include "services/engine/kernels/logit_reductions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace mechinterp::engine::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Logits as models have them; every size, to meet every tail.
std::vector<float> Row(int64_t count, unsigned seed = 0) {
  std::mt19937 random(seed + 1000 * static_cast<unsigned>(count));
  std::normal_distribution<float> normal(-3, 4);
  std::vector<float> row(count);
  for (float& value : row) value = normal(random);
  return row;
}

class VocabularyKernels : public testing::TestWithParam<int64_t> {};

TEST_P(VocabularyKernels, MaximumAndItsFirstIndex) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::vector<float> row = Row(GetParam(), seed);
    for (size_t i = 0; i < row.size(); i += 3) row[i] = std::round(row[i]);  // ties
    if (seed % 2 == 1 && row.size() > 1) row[seed % row.size()] = NAN;
    int64_t expected = -1;
    for (size_t i = 0; i < row.size(); ++i) {
      if (!std::isnan(row[i]) && (expected < 0 || row[i] > row[expected])) expected = static_cast<int64_t>(i);
    }
    EXPECT_EQ(ArgMax(row.data(), GetParam()), expected);
    EXPECT_EQ(MaxValue(row.data(), GetParam()), row[expected]);
  }
}

TEST_P(VocabularyKernels, SumsExponentials) {
  const std::vector<float> row = Row(GetParam());
  double expected = 0;
  for (float value : row) expected += std::exp(double{value} - 7.5);
  EXPECT_NEAR(SumExp(row.data(), GetParam(), 7.5), expected, 1e-13 * expected);
}

TEST_P(VocabularyKernels, WeightsEveryToken) {
  std::vector<float> row = Row(GetParam());
  row[row.size() / 2] = NAN;
  row[0] = -kInfinity;
  std::vector<double> weights(row.size() + 1, -1);
  double expected_sum = 0;
  const double sum = ExpWeights(row.data(), GetParam(), 2.25, 0.7, weights.data());
  for (size_t i = 0; i < row.size(); ++i) {
    const double expected = std::isnan(row[i]) ? 0 : std::exp((double{row[i]} - 2.25) / 0.7);
    EXPECT_NEAR(weights[i], expected, 1e-14 * expected) << i;
    expected_sum += expected;
  }
  EXPECT_NEAR(sum, expected_sum, 1e-13 * expected_sum);
  EXPECT_EQ(weights.back(), -1) << "wrote past the end";
}

TEST_P(VocabularyKernels, WeightsDifferences) {
  std::vector<float> a = Row(GetParam(), 1), b = Row(GetParam(), 2);
  std::vector<double> weights(a.size());
  double expected = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    weights[i] = std::exp(double{a[i]});
    expected += weights[i] * (double{a[i]} - b[i]);
    size += std::abs(weights[i] * (double{a[i]} - b[i]));
  }
  EXPECT_NEAR(WeightedDifference(weights.data(), a.data(), b.data(), GetParam()), expected, 1e-14 * size);
  EXPECT_EQ(WeightedDifference(weights.data(), a.data(), a.data(), GetParam()), 0);
}

INSTANTIATE_TEST_SUITE_P(Sizes, VocabularyKernels,
                         testing::Values(1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 1000, 1023, 128256));

TEST(ArgMax, WithoutAnyNumber) {
  EXPECT_EQ(ArgMax(std::vector<float>(20, NAN).data(), 20), 0);
  EXPECT_EQ(ArgMax(std::vector<float>(20, -kInfinity).data(), 20), 0);
  EXPECT_EQ(MaxValue(nullptr, 0), -kInfinity);
}

TEST(SumExp, TellsOfNaN) {
  for (int count : {5, 40}) {
    std::vector<float> row(count, 1.0f);
    row.back() = NAN;
    EXPECT_TRUE(std::isnan(SumExp(row.data(), count, 1)));
  }
}

TEST(SumExp, FarBelowIsNothing) {
  const std::vector<float> row(33, -1e30f);
  EXPECT_EQ(SumExp(row.data(), 33, 0), 0);
}

TEST(WeightedDifference, LeavesOutWhatWeighsNothing) {
  const std::vector<double> weights = {0, 2};
  const std::vector<float> a = {-kInfinity, 3}, b = {-kInfinity, 1};
  EXPECT_EQ(WeightedDifference(weights.data(), a.data(), b.data(), 2), 4);
}

}  // namespace
}  // namespace mechinterp::engine::kernels
