#ifndef DATA_MAKE_TRAINED_CIRCUIT_TRAINING_H_
#define DATA_MAKE_TRAINED_CIRCUIT_TRAINING_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "data/make_trained/task.h"
#include "data/trainer/model.h"
#include "data/trainer/optimizer.h"

namespace mechinterp::make_trained {

struct CircuitTrainingOptions {
  uint64_t seed = 1;
  int64_t pairs_per_step = 48;
  int threads = 2;
  trainer::OptimizerOptions optimizer = {.peak_rate = 3e-3, .total_steps = 600, .weight_decay = 0.02};
};

// Means over a batch, before the update, each the cross-entropy of the right answer and the
// squared distance of the answers' logits from what they should be.
struct CircuitLosses {
  double behaviour = 0;    // nothing is patched
  double interchange = 0;  // edges of the circuit come from the source: the circuit says what follows
  double strict = 0;       // other edges do: nothing follows
};

// Strict interchange intervention training (Gupta et al. 2024, arXiv 2407.14494), of edges instead
// of nodes. Not thread-safe; has threads of its own.
class CircuitTrainer {
 public:
  // `task` must outlive it. The result depends on options and task, not on `threads`.
  CircuitTrainer(const trainer::ModelConfig& config, const CircuitTrainingOptions& options, const Task& task);
  ~CircuitTrainer();

  CircuitLosses Step();
  const trainer::Weights& weights() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// All steps; `report` is called after each. Errors: Internal when a loss is not finite.
absl::StatusOr<trainer::Weights> TrainCircuit(
    const trainer::ModelConfig& config, const CircuitTrainingOptions& options, const Task& task,
    const std::function<void(int64_t step, const CircuitLosses& losses)>& report);

// How far the right answer's logit stands above the others', when all is learned.
inline constexpr double kAnswerMargin = 10;

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_CIRCUIT_TRAINING_H_
