#include "data/trainer/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace mechinterp::trainer {
namespace {

TEST(LearningRate, WarmsUpThenFallsAsHalfACosine) {
  OptimizerOptions options;
  options.peak_rate = 1.0;
  options.final_rate_share = 0.1;
  options.warmup_steps = 10;
  options.total_steps = 110;
  EXPECT_DOUBLE_EQ(LearningRate(options, 0), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(options, 9), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(options, 10), 1.0);
  EXPECT_NEAR(LearningRate(options, 60), 0.55, 1e-12);
  EXPECT_NEAR(LearningRate(options, 110), 0.1, 1e-12);
}

// The first step of Adam moves each parameter by the rate, whatever the size of
// its gradient; decoupled decay comes on top, for matrices only.
TEST(AdamW, FirstStepIsTheSignOfTheGradient) {
  OptimizerOptions options;
  options.peak_rate = 0.1;
  options.warmup_steps = 0;
  options.weight_decay = 0.5;
  options.gradient_norm = 1e9;
  at::Tensor vector = at::ones({2}), matrix = at::ones({1, 2});
  AdamW optimizer(options, {vector, matrix});
  const float values[] = {3.0f, -0.01f};
  const at::Tensor gradient = at::tensor(at::ArrayRef<float>(values, 2));
  optimizer.Step({gradient, gradient.view({1, 2})});
  EXPECT_NEAR(vector[0].item<float>(), 0.9, 1e-5);
  EXPECT_NEAR(vector[1].item<float>(), 1.1, 1e-5);
  EXPECT_NEAR(matrix[0][0].item<float>(), 0.85, 1e-5);
  EXPECT_NEAR(matrix[0][1].item<float>(), 1.05, 1e-5);
}

TEST(AdamW, FindsTheMinimumOfAParabola) {
  OptimizerOptions options;
  options.peak_rate = 0.1;
  options.warmup_steps = 5;
  options.total_steps = 300;
  at::Tensor x = at::full({1}, 5.0);
  AdamW optimizer(options, {x});
  for (int i = 0; i < 300; ++i) optimizer.Step({2 * (x - 2.0)});
  EXPECT_NEAR(x.item<float>(), 2.0, 1e-2);
}

}  // namespace
}  // namespace mechinterp::trainer
