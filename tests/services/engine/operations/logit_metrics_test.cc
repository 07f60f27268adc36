#include "services/engine/operations/logit_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace mechinterp::engine {
namespace {

const std::vector<float> kClean = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
const std::vector<float> kPatched = {std::log(0.25f), std::log(0.25f), std::log(0.25f), std::log(0.25f)};

// All log-probabilities, plainly.
std::vector<double> LogSoftmax(absl::Span<const float> logits) {
  std::vector<double> result(logits.begin(), logits.end());
  const double total = LogSumExp(result);
  for (double& value : result) value -= total;
  return result;
}

TEST(MeasureLogits, FollowsTheDefinitions) {
  MetricOptions options;
  options.refusal_token_ids = {1, 2};
  options.compliance_token_ids = {3};
  options.top_token_count = 2;
  const RunMetrics metrics = MeasureLogits(kClean, kClean, options);
  EXPECT_NEAR(*metrics.logit_difference, std::log(0.6 / 0.3), 1e-6);
  EXPECT_NEAR(*metrics.refusal_log_odds, std::log(0.6 / 0.4), 1e-6);
  EXPECT_NEAR(*metrics.kl_from_clean, 0, 1e-12);
  ASSERT_EQ(metrics.top_tokens.size(), 2u);
  EXPECT_EQ(metrics.top_tokens[0].id, 1);
  EXPECT_NEAR(metrics.top_tokens[1].probability, 0.3, 1e-6);
}

TEST(MeasureLogits, KlIsFromTheCleanRun) {
  const double expected = 0.1 * std::log(0.1 / 0.25) + 0.4 * std::log(0.4 / 0.25) +
                          0.2 * std::log(0.2 / 0.25) + 0.3 * std::log(0.3 / 0.25);
  EXPECT_NEAR(*MeasureLogits(kPatched, kClean, {}).kl_from_clean, expected, 1e-6);
}

TEST(MeasureLogits, LeavesOutWhatWasNotAskedFor) {
  const RunMetrics metrics = MeasureLogits(kClean, kClean, {});
  EXPECT_FALSE(metrics.logit_difference.has_value());
  EXPECT_FALSE(metrics.refusal_log_odds.has_value());
  EXPECT_TRUE(metrics.top_tokens.empty());
}

TEST(MeasureLogits, LogOddsStayFiniteNearCertainty) {
  MetricOptions options;
  options.refusal_token_ids = {0};
  const RunMetrics metrics = MeasureLogits({40.f, 0.f}, {40.f, 0.f}, options);
  EXPECT_NEAR(*metrics.refusal_log_odds, 40, 1e-6);
}

// The definitions in double precision, step by step.
RunMetrics MeasureNaively(const std::vector<float>& logits, const std::vector<float>& clean,
                          const MetricOptions& options) {
  const std::vector<double> ours = LogSoftmax(logits), theirs = LogSoftmax(clean);
  auto mass = [&](const std::vector<TokenId>& ids) {
    double sum = 0;
    for (TokenId id : ids) sum += std::exp(ours[id]);
    return sum;
  };
  double others = 0, divergence = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    divergence += std::exp(theirs[i]) * (theirs[i] - ours[i]);
    const auto& refusals = options.refusal_token_ids;
    if (std::find(refusals.begin(), refusals.end(), i) == refusals.end()) others += std::exp(ours[i]);
  }
  RunMetrics metrics;
  metrics.logit_difference =
      std::log(mass(options.refusal_token_ids)) - std::log(mass(options.compliance_token_ids));
  metrics.refusal_log_odds = std::log(mass(options.refusal_token_ids)) - std::log(others);
  metrics.kl_from_clean = divergence;
  return metrics;
}

TEST(MeasureLogits, AgreesWithTheDefinitionsOnLargeVocabularies) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(-2, 3);
  for (int size : {10, 63, 1000, 50000}) {
    std::vector<float> clean(size), patched(size);
    for (int i = 0; i < size; ++i) {
      clean[i] = normal(random);
      patched[i] = clean[i] + 0.3f * normal(random);
    }
    MetricOptions options;
    options.refusal_token_ids = {size - 1, 0, 5};
    options.compliance_token_ids = {3, 4};
    options.top_token_count = 7;
    const ReferenceDistribution reference(clean);
    const RunMetrics expected = MeasureNaively(patched, clean, options);
    const RunMetrics metrics = MeasureLogits(patched, reference, options);
    EXPECT_NEAR(*metrics.logit_difference, *expected.logit_difference, 1e-10);
    EXPECT_NEAR(*metrics.refusal_log_odds, *expected.refusal_log_odds, 1e-10);
    EXPECT_NEAR(*metrics.kl_from_clean, *expected.kl_from_clean, 1e-10);
    EXPECT_EQ(*MeasureLogits(clean, reference, options).kl_from_clean, 0);
    EXPECT_EQ(*MeasureLogits(patched, clean, options).kl_from_clean, *metrics.kl_from_clean);

    std::vector<TokenId> ids(size);
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](TokenId a, TokenId b) { return patched[a] > patched[b]; });
    ASSERT_EQ(metrics.top_tokens.size(), 7u);
    for (int i = 0; i < 7; ++i) {
      EXPECT_EQ(metrics.top_tokens[i].id, ids[i]);
      EXPECT_NEAR(std::log(metrics.top_tokens[i].probability), LogSoftmax(patched)[ids[i]], 1e-10);
    }
  }
}

TEST(MeasureLogits, SmallDivergencesKeepTheirDigits) {
  // Of two tokens, p = 1/2 and q = sigmoid(d): KL = log(cosh(d / 2)), d^2 / 8 - d^4 / 192 ...
  const float d = 1.0f / 4096;
  const double expected = double{d} * d / 8;
  EXPECT_NEAR(*MeasureLogits({d, 0.f}, {0.f, 0.f}, {}).kl_from_clean, expected, 1e-6 * expected);
}

TEST(AsSets, CountsEveryTokenOnce) {
  MetricOptions options;
  options.refusal_token_ids = {2, 1, 2, 1, 1};
  options.compliance_token_ids = {3, 3};
  const RunMetrics metrics = MeasureLogits(kClean, kClean, AsSets(options));
  EXPECT_NEAR(*metrics.logit_difference, std::log(0.6 / 0.3), 1e-6);
  EXPECT_NEAR(*metrics.refusal_log_odds, std::log(0.6 / 0.4), 1e-6);
}

// That a continuation begins with {1, 2} is part of its beginning with {1}.
TEST(AsSets, KeepsTheOpeningsThatNoOtherBegins) {
  using Openings = std::vector<std::vector<TokenId>>;
  MetricOptions options;
  options.refusal_openings = {{1, 2, 3}, {4, 5}, {1, 2}, {10, 1}, {4, 5}, {1, 2, 4}, {1, 3}};
  options.compliance_openings = {{1}, {1, 2}, {1}};
  const MetricOptions sets = AsSets(options);
  EXPECT_EQ(sets.refusal_openings, (Openings{{1, 2}, {1, 3}, {4, 5}, {10, 1}}));
  EXPECT_EQ(sets.compliance_openings, (Openings{{1}}));
}

TEST(LogProbability, IsThatOfLogSoftmax) {
  for (TokenId id : {0, 1, 2, 3}) {
    EXPECT_NEAR(LogProbability(kClean, id), LogSoftmax(kClean)[id], 1e-14);
  }
  EXPECT_NEAR(LogProbability({1000.f, 0.f}, 1), -1000, 1e-9);
  EXPECT_TRUE(std::isnan(LogProbability({NAN, 0.f}, 1)));
}

TEST(Effect, IsTheShareOfTheWayToTheSource) {
  RunMetrics clean, source, patched;
  clean.logit_difference = -2;
  source.logit_difference = 6;
  patched.logit_difference = 0;
  EXPECT_DOUBLE_EQ(*Effect(patched, clean, source), 0.25);
  source.logit_difference = -2;
  EXPECT_FALSE(Effect(patched, clean, source).has_value());
}

}  // namespace
}  // namespace mechinterp::engine
