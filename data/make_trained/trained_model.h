#ifndef DATA_MAKE_TRAINED_TRAINED_MODEL_H_
#define DATA_MAKE_TRAINED_TRAINED_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/make_trained/circuit_measurement.h"
#include "data/make_trained/circuit_training.h"
#include "data/make_trained/task.h"
#include "data/trainer/model.h"
#include "services/engine/checkpoint/checkpoint_writer.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::make_trained {

struct TrainedOptions {
  std::string task = "refusal";  // the name of one of TaskKinds()
  uint64_t seed = 1;             // decides where the circuit lies, and all that is random
  int layers = 3;
  int heads = 4;
  int kv_heads = 2;
  int head_size = 16;
  int d_model = 64;
  int d_ff = 96;
  CircuitTrainingOptions training;  // but for its seed
  int heldout_pairs = 64;           // that accuracies are measured on
  int attempts = 3;                 // from other first weights, until one HasLearned
  // A folder whose tokenizer to take, with Llama 3's template; the study's prompts and phrases.
  TaskOptions files = {"data/models/tiny-llama-refusal", "data/prompts.json", "data/refusal_phrases.json"};
};

// A model that was trained to a circuit.
struct TrainedModel {
  trainer::ModelConfig config;
  trainer::Weights weights;
  engine::CheckpointFiles files;  // config.json, the tokenizer's, truth.json
  std::shared_ptr<const engine::Tokenizer> tokenizer;
  Task task;
  int attempts = 0;  // that were made
  Accuracies accuracies;
  EffectErrors effect_errors;
};

using TrainingReport = std::function<void(int64_t step, const CircuitLosses& losses)>;

// Whether every accuracy is 99 % or more.
bool HasLearned(const Accuracies& accuracies);

// All but the weights, the measurements and truth.json. Errors: NotFound for a task that is not
// there; InvalidArgument for sizes that contradict each other or are too small for a circuit; those
// of the task's maker and AddTokenizer.
absl::StatusOr<TrainedModel> PrepareTrained(const TrainedOptions& options);

// What the last attempt has made, whether or not it HasLearned. Depends on the options alone, but
// for what another BLAS or processor rounds differently; not on threads. Errors: those of
// PrepareTrained and TrainCircuit.
absl::StatusOr<TrainedModel> MakeTrained(const TrainedOptions& options, const TrainingReport& report);

// Writes it as a checkpoint in Hugging Face layout, in fp32. Errors are WriteCheckpoint's.
absl::Status WriteTrained(const std::string& directory, TrainedModel& model);

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_TRAINED_MODEL_H_
