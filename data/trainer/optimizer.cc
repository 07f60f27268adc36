#include "data/trainer/optimizer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

namespace mechinterp::trainer {

double LearningRate(const OptimizerOptions& options, int64_t step) {
  if (step < options.warmup_steps) {
    return options.peak_rate * static_cast<double>(step + 1) / static_cast<double>(options.warmup_steps);
  }
  const double span = static_cast<double>(std::max<int64_t>(1, options.total_steps - options.warmup_steps));
  const double progress = std::min(1.0, static_cast<double>(step - options.warmup_steps) / span);
  const double cosine = 0.5 * (1.0 + std::cos(progress * 3.141592653589793));
  return options.peak_rate * (options.final_rate_share + (1.0 - options.final_rate_share) * cosine);
}

AdamW::AdamW(OptimizerOptions options, std::vector<at::Tensor> parameters)
    : options_(options), parameters_(std::move(parameters)) {
  for (const at::Tensor& parameter : parameters_) {
    means_.push_back(at::zeros_like(parameter));
    squares_.push_back(at::zeros_like(parameter));
  }
}

void AdamW::Step(const std::vector<at::Tensor>& gradients) {
  const c10::AutoGradMode no_gradients(false);
  double squared_norm = 0;
  for (const at::Tensor& gradient : gradients) {
    squared_norm += at::sum(gradient * gradient).item<double>();
  }
  const double clip = std::min(1.0, options_.gradient_norm / (std::sqrt(squared_norm) + 1e-12));
  const double rate = LearningRate(options_, step_);
  ++step_;
  const double mean_bias = 1.0 - std::pow(options_.beta1, static_cast<double>(step_));
  const double square_bias = 1.0 - std::pow(options_.beta2, static_cast<double>(step_));
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor gradient = gradients[i] * clip;
    means_[i].mul_(options_.beta1).add_(gradient, 1.0 - options_.beta1);
    squares_[i].mul_(options_.beta2).addcmul_(gradient, gradient, 1.0 - options_.beta2);
    if (parameters_[i].dim() > 1) parameters_[i].mul_(1.0 - rate * options_.weight_decay);
    const at::Tensor deviation = at::sqrt(squares_[i] / square_bias) + options_.epsilon;
    parameters_[i].addcdiv_(means_[i], deviation, -rate / mean_bias);
  }
}

}  // namespace mechinterp::trainer
