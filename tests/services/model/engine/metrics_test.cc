#include "services/model/engine/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mechinterp::engine {
namespace {

const std::vector<float> kClean = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
const std::vector<float> kPatched = {std::log(0.25f), std::log(0.25f), std::log(0.25f), std::log(0.25f)};

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
