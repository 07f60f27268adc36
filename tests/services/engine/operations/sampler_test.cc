#include "services/engine/operations/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "services/engine/base/random.h"

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

// The definition, written down: weigh all, sort all, filter, draw in the order of
// the ids.
TokenId SampleBySorting(const std::vector<float>& logits, const SamplingOptions& options, int step) {
  std::vector<std::pair<double, TokenId>> candidates;  // minus weight, id
  const double largest = *std::max_element(logits.begin(), logits.end());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates.emplace_back(-std::exp((logits[i] - largest) / options.temperature), i);
  }
  std::sort(candidates.begin(), candidates.end());
  if (options.top_k > 0) candidates.resize(std::min<size_t>(options.top_k, candidates.size()));
  auto total = [&] {
    double sum = 0;
    for (const auto& candidate : candidates) sum -= candidate.first;
    return sum;
  };
  if (options.top_p < 1) {
    const double wanted = options.top_p * total();
    double kept = 0;
    size_t count = 0;
    while (count < candidates.size() && kept < wanted) kept -= candidates[count++].first;
    candidates.resize(count);
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  double left = RandomUniform(options.seed, 1, static_cast<uint64_t>(step)) * total();
  for (const auto& candidate : candidates) {
    if ((left += candidate.first) < 0) return candidate.second;
  }
  return candidates.back().second;
}

TEST(Sampler, ChoosesWhatTheDefinitionDoes) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 3);
  for (int round = 0; round < 200; ++round) {
    SamplingOptions options;
    options.seed = round;
    options.temperature = 0.2 + 0.1 * static_cast<double>(random() % 20);
    if (round % 4 >= 2) options.top_k = 1 + static_cast<int>(random() % 1200);
    if (round % 2 == 1) options.top_p = 0.05 * static_cast<double>(1 + random() % 19);
    Sampler sampler(options);  // its buffers serve all steps
    for (int step = 0; step < 10; ++step) {
      std::vector<float> logits(1 + random() % 1000);
      for (float& logit : logits) logit = normal(random);
      ASSERT_EQ(sampler.Choose(logits, step), SampleBySorting(logits, options, step))
          << "round " << round << " step " << step;
    }
  }
}

TEST(Sampler, InfiniteAndMissingLogits) {
  SamplingOptions options;
  options.temperature = 1;
  for (double top_p : {1.0, 0.5}) {
    options.top_p = top_p;
    EXPECT_EQ(SampleToken({NAN, NAN, 1.f}, options, 0), 2);
    EXPECT_EQ(SampleToken({0.f, INFINITY, 1.f}, options, 0), 1);
    EXPECT_EQ(SampleToken({-INFINITY, -INFINITY}, options, 0), 0);
  }
}

}  // namespace
}  // namespace mechinterp::engine
