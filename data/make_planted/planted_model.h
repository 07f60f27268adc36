#ifndef DATA_MAKE_PLANTED_PLANTED_MODEL_H_
#define DATA_MAKE_PLANTED_PLANTED_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/make_planted/rotated_weights.h"
#include "services/engine/checkpoint/checkpoint_writer.h"

namespace mechinterp::make_planted {

struct PlantedOptions {
  std::string variant = "single_path";  // the name of one of Variants()
  uint64_t seed = 1;                    // decides where components lie, and all that is random
  int layers = 6;
  int heads = 8;
  int kv_heads = 4;
  int head_size = 16;
  int d_model = 128;
  int d_ff = 128;
  // A folder whose tokenizer to take, with Llama 3's template; the study's prompts and phrases.
  std::string tokenizer = "data/models/tiny-llama-refusal";
  std::string prompts = "data/prompts.json";
  std::string phrases = "data/refusal_phrases.json";
};

// A model that refuses by a known circuit.
struct PlantedModel {
  std::vector<WrittenTensor> tensors;
  engine::CheckpointFiles files;  // config.json, the tokenizer's, truth.json
  // Of truth.json: its "neuron_edges", and how many pairs it holds for.
  std::vector<std::string> edges;
  size_t pair_count = 0;
};

// Depends on the options alone. Errors: NotFound for a variant that is not there;
// InvalidArgument for sizes that are too small (CheckSizes) or contradict each other; those of
// AddTokenizer, FindWords and LoadAnswers; FailedPrecondition when the variant tells none of the
// pairs apart, or the template's last token stands within prompts.
absl::StatusOr<PlantedModel> MakePlanted(const PlantedOptions& options);

// Writes it as a checkpoint in Hugging Face layout, in fp32. Errors are WriteCheckpoint's.
absl::Status WritePlanted(const std::string& directory, const PlantedModel& model);

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_PLANTED_MODEL_H_
