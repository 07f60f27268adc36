#include "services/model/engine/kernels/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace mechinterp::engine::kernels {
namespace {

std::vector<float> Random(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

TEST(RootMeanSquare, IsTheDefinition) {
  const std::vector<float> x = Random(3 * 37, 5);
  std::vector<float> scale(3);
  RootMeanSquare(x.data(), 3, 37, 1e-5f, scale.data());
  for (int i = 0; i < 3; ++i) {
    double squares = 0;
    for (int j = 0; j < 37; ++j) squares += double{x[i * 37 + j]} * x[i * 37 + j];
    EXPECT_NEAR(scale[i], std::sqrt(squares / 37 + 1e-5), 1e-6);
  }
}

TEST(SiluMultiply, IsTheDefinitionAndTheSameInTheTailOfAVector) {
  for (int count : {1, 5, 16, 17, 100}) {
    const std::vector<float> gate = Random(count, 6), up = Random(count, 7);
    std::vector<float> y(count), one(1);
    SiluMultiply(gate.data(), up.data(), count, y.data());
    for (int i = 0; i < count; ++i) {
      EXPECT_NEAR(y[i], gate[i] / (1 + std::exp(-double{gate[i]})) * up[i], 1e-6);
      SiluMultiply(&gate[i], &up[i], 1, one.data());
      EXPECT_EQ(y[i], one[0]);
    }
  }
}

TEST(SoftmaxRow, SumsToOneAndHidesMinusInfinity) {
  std::vector<float> scores = Random(21, 8);
  scores[4] = -INFINITY;
  const std::vector<float> before = scores;
  SoftmaxRow(scores.data(), 21);
  double total = 0, expected_total = 0;
  for (float p : scores) total += p;
  for (float s : before) expected_total += std::exp(double{s});
  EXPECT_NEAR(total, 1, 1e-6);
  EXPECT_EQ(scores[4], 0);
  EXPECT_NEAR(scores[0], std::exp(before[0]) / expected_total, 1e-6);
}

// A sequence in two stretches is the same sequence.
TEST(Attention, SharedAndOwnRowsAreOneSequence) {
  constexpr int64_t kCount = 11, kSize = 18, kStride = 40;
  const std::vector<float> rows = Random(kCount * kStride, 9), query = Random(kSize, 10);
  const HeadSequence whole{{nullptr, 0}, {rows.data(), kCount}, kStride};
  std::vector<float> scores(kCount), z(kSize);
  ScoreRow(query.data(), whole, kCount, kSize, 0.5f, scores.data());
  MixRow(scores.data(), whole, kCount, kSize, z.data());
  for (int64_t shared : {1, 5, 10}) {
    const HeadSequence split{
        {rows.data(), shared}, {rows.data() + shared * kStride, kCount - shared}, kStride};
    std::vector<float> split_scores(kCount), split_z(kSize);
    ScoreRow(query.data(), split, kCount, kSize, 0.5f, split_scores.data());
    MixRow(split_scores.data(), split, kCount, kSize, split_z.data());
    EXPECT_EQ(split_scores, scores);
    EXPECT_EQ(split_z, z);
  }
  double dot = 0, mixed = 0;
  for (int64_t i = 0; i < kSize; ++i) dot += double{query[i]} * rows[2 * kStride + i];
  EXPECT_NEAR(scores[2], dot * 0.5, 1e-5);
  for (int64_t t = 0; t < kCount; ++t) mixed += double{scores[t]} * rows[t * kStride + 17];
  EXPECT_NEAR(z[17], mixed, 1e-4);
}

}  // namespace
}  // namespace mechinterp::engine::kernels
