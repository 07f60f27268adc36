#ifndef DATA_TRAINER_OPTIMIZER_H_
#define DATA_TRAINER_OPTIMIZER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace mechinterp::trainer {

struct OptimizerOptions {
  double peak_rate = 2e-3;
  double final_rate_share = 0.05;  // of the peak, reached at the last step
  int64_t warmup_steps = 50;
  int64_t total_steps = 1200;
  double beta1 = 0.9;
  double beta2 = 0.98;
  double epsilon = 1e-8;
  double weight_decay = 0.05;  // of matrices only
  double gradient_norm = 1.0;  // gradients are scaled down to this
};

// Linear warm-up, then half a cosine. `step` counts from 0.
double LearningRate(const OptimizerOptions& options, int64_t step);

// AdamW (Loshchilov & Hutter 2019) over parameters that it edits in place. Not
// thread-safe.
class AdamW {
 public:
  AdamW(OptimizerOptions options, std::vector<at::Tensor> parameters);

  // One update; `gradients` lie in the parameters' order.
  void Step(const std::vector<at::Tensor>& gradients);
  int64_t steps() const { return step_; }

 private:
  OptimizerOptions options_;
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> means_, squares_;
  int64_t step_ = 0;
};

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_OPTIMIZER_H_
