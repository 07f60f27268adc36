#include "services/engine/kernels/rows.h"

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

// Scores and z of one query row of several heads.
struct Attended {
  std::vector<float> scores;  // [heads, count]
  std::vector<float> z;       // [heads, size]
};
Attended Attend(const float* queries, int64_t heads, const HeadSequence& rows, int64_t size) {
  const int64_t count = rows.count();
  Attended result{std::vector<float>(heads * count), std::vector<float>(heads * size)};
  ScoreRows(queries, heads, rows, count, size, 0.5f, result.scores.data(), count);
  MixRows(result.scores.data(), count, heads, rows, count, size, result.z.data());
  return result;
}

TEST(Attention, IsTheDefinition) {
  constexpr int64_t kCount = 11, kSize = 18, kStride = 40;
  const std::vector<float> rows = Random(kCount * kStride, 9), query = Random(kSize, 10);
  const auto [scores, z] = Attend(query.data(), 1, {{nullptr, 0}, {rows.data(), kCount}, kStride}, kSize);
  double dot = 0, mixed = 0;
  for (int64_t i = 0; i < kSize; ++i) dot += double{query[i]} * rows[2 * kStride + i];
  EXPECT_NEAR(scores[2], dot * 0.5, 1e-5);
  for (int64_t t = 0; t < kCount; ++t) mixed += double{scores[t]} * rows[t * kStride + 17];
  EXPECT_NEAR(z[17], mixed, 1e-4);
}

// A sequence in two stretches is the same sequence, and a head's numbers do not depend
// on the heads that it shares keys with.
TEST(Attention, IsTheSameInTwoStretchesAndForEachHeadAlone) {
  constexpr int64_t kCount = 11, kStride = 300, kHeads = 7;
  for (int64_t size : {2, 18, 64, 128, 150, 272}) {
    const std::vector<float> rows = Random(kCount * kStride, 9), queries = Random(kHeads * size, 10);
    const Attended together =
        Attend(queries.data(), kHeads, {{nullptr, 0}, {rows.data(), kCount}, kStride}, size);
    for (int64_t shared : {1, 5, 10}) {
      const HeadSequence split{
          {rows.data(), shared}, {rows.data() + shared * kStride, kCount - shared}, kStride};
      for (int64_t h = 0; h < kHeads; ++h) {
        const auto [scores, z] = Attend(queries.data() + h * size, 1, split, size);
        EXPECT_EQ(scores, std::vector<float>(together.scores.begin() + h * kCount,
                                             together.scores.begin() + (h + 1) * kCount));
        EXPECT_EQ(z, std::vector<float>(together.z.begin() + h * size, together.z.begin() + (h + 1) * size));
      }
    }
  }
}

}  // namespace
}  // namespace mechinterp::engine::kernels
