#include "services/engine/operations/metric_gradient.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace mechinterp::engine {
namespace {

constexpr int kVocabulary = 40;

std::vector<float> RandomLogits(unsigned seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> logits(kVocabulary);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// The metrics by their definitions, in double precision.
double Direct(MetricKind kind, const MetricOptions& options, const std::vector<double>& logits,
              const std::vector<float>& clean) {
  const auto sum = [](const auto& values, const std::vector<TokenId>& ids) {
    double total = 0;
    for (TokenId id : ids) total += std::exp(double{values[id]});
    return total;
  };
  std::vector<TokenId> all(kVocabulary);
  for (int i = 0; i < kVocabulary; ++i) all[i] = i;
  const double refusal = sum(logits, options.refusal_token_ids);
  switch (kind) {
    case MetricKind::kLogitDifference:
      return std::log(refusal / sum(logits, options.compliance_token_ids));
    case MetricKind::kRefusalLogOdds:
      return std::log(refusal / (sum(logits, all) - refusal));
    case MetricKind::kKlFromClean:
    case MetricKind::kOpenings:  // no function of one row; in attribution_test.cc
      break;
  }
  double divergence = 0;
  for (int i = 0; i < kVocabulary; ++i) {
    const double p = std::exp(double{clean[i]}) / sum(clean, all), q = std::exp(logits[i]) / sum(logits, all);
    divergence += p * std::log(p / q);
  }
  return divergence;
}

TEST(MetricGradient, IsWhatTheMetricChangesBy) {
  MetricOptions options;
  options.refusal_token_ids = {3, 9};
  options.compliance_token_ids = {0, 11, 39};
  for (unsigned seed = 0; seed < 5; ++seed) {
    const std::vector<float> logits = RandomLogits(seed, 2), clean = RandomLogits(seed + 100, 2);
    for (const MetricKind kind :
         {MetricKind::kLogitDifference, MetricKind::kRefusalLogOdds, MetricKind::kKlFromClean}) {
      const DifferentiableMetric metric =
          MakeMetric(kind, options, std::make_shared<ReferenceDistribution>(clean));
      const std::vector<double> exact(logits.begin(), logits.end());
      EXPECT_NEAR(metric.value(logits), Direct(kind, options, exact, clean), 1e-6);
      std::vector<float> gradient(kVocabulary, 7);
      metric.gradient(logits, absl::MakeSpan(gradient));
      for (int i = 0; i < kVocabulary; ++i) {
        std::vector<double> above = exact, below = exact;
        above[i] += 1e-5;
        below[i] -= 1e-5;
        const double difference =
            (Direct(kind, options, above, clean) - Direct(kind, options, below, clean)) / 2e-5;
        EXPECT_NEAR(gradient[i], difference, 1e-6) << i;
      }
    }
  }
}

// Where the refusal is nearly certain, 1 - p is lost in rounding; its logarithm is not.
TEST(MetricGradient, OfLogOddsHoldsFarOut) {
  MetricOptions options;
  options.refusal_token_ids = {5};
  for (const float logit : {-300.0f, 300.0f}) {
    std::vector<float> logits(kVocabulary, 0), gradient(kVocabulary);
    logits[5] = logit;
    MakeMetric(MetricKind::kRefusalLogOdds, options, nullptr).gradient(logits, absl::MakeSpan(gradient));
    for (int i = 0; i < kVocabulary; ++i) {
      EXPECT_NEAR(gradient[i], i == 5 ? 1 : -1.0 / (kVocabulary - 1), 1e-6) << i;
    }
  }
}

}  // namespace
}  // namespace mechinterp::engine
