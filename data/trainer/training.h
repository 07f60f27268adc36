#ifndef DATA_TRAINER_TRAINING_H_
#define DATA_TRAINER_TRAINING_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "data/trainer/corpus.h"
#include "data/trainer/model.h"
#include "data/trainer/optimizer.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::trainer {

struct TrainingOptions {
  uint64_t seed = 1;
  int64_t batch_size = 64;
  int threads = 2;
  // Weight of a group lasso over the heads' output projections: with it the
  // model keeps to few heads, and what refuses can be told from what does not.
  double head_sparsity = 5e-4;
  OptimizerOptions optimizer;
};

// Keeps libtorch and its BLAS to one thread each. Threads of our own work on
// shards of the batch instead: pools of libgomp and OpenBLAS that spin against
// each other cost a factor of three on two cores.
void UseOneMathThread();

// Trains from random weights on batches drawn from `corpus`, learning only the
// responses. The result depends on the seed and options but not on `threads`:
// a batch is always cut into the same shards, summed in the same order.
// Logs a line every 25 steps. Errors: Internal when the loss is not finite.
absl::StatusOr<Weights> Train(const ModelConfig& config, const TrainingOptions& options, const Corpus& corpus,
                              const engine::Tokenizer& tokenizer);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_TRAINING_H_
