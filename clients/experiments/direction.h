#ifndef CLIENTS_EXPERIMENTS_DIRECTION_H_
#define CLIENTS_EXPERIMENTS_DIRECTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/experiment.h"
#include "clients/experiments/metric_tokens.h"
#include "clients/experiments/published_scores.h"
#include "mechinterp/v1/direction.pb.h"

namespace mechinterp {

// The gradients' directions that are looked at are no more.
inline constexpr int kMostSubspace = 32;

struct DirectionOptions {
  // Directions are made on the first, chosen on the second and tested on the third. Without validation
  // pairs every fourth one is kept for that; of fewer than four, all are both.
  std::vector<PromptPair> pairs;
  std::vector<PromptPair> validation_pairs;
  std::vector<PromptPair> test_pairs;
  Openings openings;
  RefusalJudge judge{{}};
  // What a candidate needs to be eligible (Arditi et al. 2024).
  double most_kl = 0.1;
  double least_induce = 0;
  double layer_share = 0.8;
  // Subspaces of 1 to so many directions are tried.
  int most_rank = 4;
  // Random directions beside the chosen one.
  int control_count = 5;
  int max_new_tokens = 32;
  // Plain texts whose cross-entropy is measured under each edit.
  std::vector<std::string> texts;
  // To be compared with.
  std::vector<PublishedScore> published;
};

struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

struct DirectionStudy {
  v1::DirectionResults results;
  // "candidates" [positions, layers, d_model], the differences; "harmless_mean", "harmful_mean" of the
  // same shape; where one was chosen, "refusal" [d_model], the difference itself, and "subspace"
  // [rank, d_model], orthonormal.
  std::vector<NamedTensor> tensors;
};

// The directions along which the model tells what it refuses: differences of the residual stream's
// means between harmful and harmless prompts, at every position of the template's tail and in every
// layer; one is chosen by bypass, induce and KL scores and tested on other prompts, beside random ones
// (Arditi et al. 2024), and so is a subspace of several.
// Errors: FailedPrecondition for a model without chat template; InvalidArgument where a test prompt is
// also one that directions were made or chosen on.
absl::StatusOr<DirectionStudy> RunDirection(const ExperimentContext& context,
                                            const DirectionOptions& options);

// What the results depend on, for the journal.
Fingerprint DirectionFingerprint(const ExperimentContext& context, const DirectionOptions& options);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_DIRECTION_H_
