#include "services/model/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace mechinterp::engine {
namespace {

const std::vector<float> kLogits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};

std::map<TokenId, double> Frequencies(SamplingOptions options, int draws = 20000) {
  std::map<TokenId, double> frequencies;
  for (int step = 0; step < draws; ++step) frequencies[SampleToken(kLogits, options, step)] += 1.0 / draws;
  return frequencies;
}

TEST(SampleToken, GreedyTakesTheLikeliestAndTheLowestAmongEquals) {
  EXPECT_EQ(SampleToken(kLogits, {}, 0), 1);
  EXPECT_EQ(SampleToken({1.f, 3.f, 3.f, NAN}, {}, 0), 1);
  EXPECT_EQ(SampleToken({NAN, 0.f}, {}, 0), 1);
}

TEST(SampleToken, FollowsTheDistribution) {
  SamplingOptions options;
  options.temperature = 1;
  const auto f = Frequencies(options);
  EXPECT_NEAR(f.at(0), 0.1, 0.015);
  EXPECT_NEAR(f.at(1), 0.4, 0.02);
  EXPECT_NEAR(f.at(3), 0.3, 0.02);
}

TEST(SampleToken, TemperatureSharpens) {
  SamplingOptions options;
  options.temperature = 0.5;  // squares the probabilities: 0.01 0.16 0.04 0.09 of 0.30
  const auto f = Frequencies(options);
  EXPECT_NEAR(f.at(1), 0.16 / 0.30, 0.02);
  EXPECT_NEAR(f.at(0), 0.01 / 0.30, 0.01);
}

TEST(SampleToken, TopKKeepsTheLikeliest) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 2;
  const auto f = Frequencies(options);
  EXPECT_EQ(f.size(), 2u);
  EXPECT_NEAR(f.at(1), 4.0 / 7, 0.02);
}

TEST(SampleToken, TopPKeepsTheSmallestSetThatReachesIt) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_p = 0.69;  // 0.4 alone is less, 0.4 + 0.3 more
  EXPECT_EQ(Frequencies(options).size(), 2u);
  options.top_p = 0.71;
  EXPECT_EQ(Frequencies(options).size(), 3u);
  options.top_p = 1e-9;
  EXPECT_EQ(Frequencies(options).size(), 1u);
}

TEST(SampleToken, SeedAndStepDecideAlone) {
  SamplingOptions options;
  options.temperature = 1;
  options.seed = 7;
  int differing = 0;
  for (int step = 0; step < 50; ++step) {
    const TokenId token = SampleToken(kLogits, options, step);
    EXPECT_EQ(token, SampleToken(kLogits, options, step));
    SamplingOptions other = options;
    other.seed = 8;
    differing += token != SampleToken(kLogits, other, step);
  }
  EXPECT_GT(differing, 10);
}

}  // namespace
}  // namespace mechinterp::engine
