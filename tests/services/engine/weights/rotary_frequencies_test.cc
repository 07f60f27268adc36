// Closed forms. Every scaling against transformers: forward/fixtures_test.cc; against a plain
// second implementation, in every kind of run: forward/naive_agreement_test.cc.

#include "services/engine/weights/rotary_frequencies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace mechinterp::engine {
namespace {

ModelConfig Config(std::optional<RopeScaling> scaling) {
  ModelConfig config;
  config.head_size = 8;
  config.rope_theta = 10000;
  config.rope_scaling = scaling;
  return config;
}

TEST(RotaryFrequencies, ArePowersOfTheta) {
  const RotaryFrequencies plain(Config(std::nullopt), false);
  EXPECT_THAT(plain.At(1), testing::Pointwise(testing::FloatEq(), {1.0f, 0.1f, 0.01f, 0.001f}));
  EXPECT_EQ(plain.At(1 << 20), plain.At(1));
  EXPECT_EQ(plain.pairs(), 4);
  EXPECT_EQ(plain.magnitude(), 1);
}

TEST(RotaryFrequencies, LinearScalingDividesThem) {
  const RotaryFrequencies linear(Config(LinearRope{4}), false);
  EXPECT_THAT(linear.At(99), testing::Pointwise(testing::FloatEq(), {0.25f, 0.025f, 0.0025f, 0.00025f}));
}

// Past the original context the first pair turns as before, and the last as much slower as
// the context is stretched: 1 + factor * (length / original - 1).
TEST(RotaryFrequencies, DynamicScalingGoesByTheLength) {
  const RotaryFrequencies dynamic(Config(DynamicRope{3, 100}), false);
  const std::vector<float> plain = RotaryFrequencies(Config(std::nullopt), false).At(1);
  EXPECT_EQ(dynamic.At(1), plain);
  EXPECT_EQ(dynamic.At(100), plain);
  const std::vector<float> longer = dynamic.At(150);
  EXPECT_EQ(longer.front(), 1.0f);
  EXPECT_NEAR(longer.back() * 2.5, plain.back(), 1e-9);
  EXPECT_NEAR(dynamic.At(200).back() * 4, plain.back(), 1e-9);
  EXPECT_NE(dynamic.At(101), plain);
}

// In 6283 positions pair 1.49 makes 32 turns and pair 3.0 one. With truncation pairs 0 and 1
// are kept, 3 is divided by the factor, 2 is halfway.
TEST(RotaryFrequencies, YarnKeepsQuickPairsAndDividesSlowOnes) {
  YarnRope yarn{.factor = 4, .original_context_length = 6283, .attention_factor = 1.25};
  const RotaryFrequencies truncated(Config(yarn), false);
  EXPECT_THAT(truncated.At(1),
              testing::Pointwise(testing::FloatNear(1e-8f), {1.0f, 0.1f, 0.01f * 0.625f, 0.001f * 0.25f}));
  EXPECT_EQ(truncated.magnitude(), 1.25f);
  yarn.truncate = false;
  const RotaryFrequencies exact(Config(yarn), false);
  const double first = 4 * std::log(6283 / (64 * std::acos(-1))) / std::log(10000.0);
  const double last = 4 * std::log(6283 / (2 * std::acos(-1))) / std::log(10000.0);
  EXPECT_NEAR(exact.At(1)[2], 0.01 * (1 - 0.75 * (2 - first) / (last - first)), 1e-8);
}

TEST(RotaryFrequencies, MayBeRoundedToBfloat16) {
  EXPECT_EQ(RotaryFrequencies(Config(std::nullopt), true).At(1)[1], 0.10009765625f);
}

}  // namespace
}  // namespace mechinterp::engine
