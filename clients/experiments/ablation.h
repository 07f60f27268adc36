#ifndef CLIENTS_EXPERIMENTS_ABLATION_H_
#define CLIENTS_EXPERIMENTS_ABLATION_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/experiment.h"

namespace mechinterp {

struct AblationOptions {
  std::vector<PromptPair> pairs;
  // Prompts that the ranking has not seen, to test the criterion on; may be
  // empty.
  std::vector<PromptPair> held_out_pairs;
  RefusalJudge judge{{}};
  // PatchingResults.ranking: best first.
  std::vector<v1::RankedComponent> ranking;
  // The criterion is judged by the first. At least one.
  std::vector<v1::AblationMethod> methods = {v1::ABLATION_METHOD_MEAN};
  // Sizes of the ablated sets. 0 is added; those past the ranking's end are
  // left out.
  std::vector<int> top_counts = {0, 1, 2, 3, 5, 8, 10, 16, 20};
  // Random sets drawn for each size.
  int random_draws = 5;
  // Ablate prompts at every position instead of the decision positions.
  bool all_positions = false;
  // Judge the criterion at this size. Unset: at the size of at most
  // `largest_criterion_count` where top and random lie furthest apart.
  std::optional<int> criterion_count;
  int largest_criterion_count = 10;
  double threshold_points = 30;
  int max_new_tokens = 64;
};

// Whether the components that patching found carry refusal: the top K of the
// ranking are ablated together while the model answers every prompt, and the
// answers judged; beside them random sets of the same numbers of heads and of
// neuron groups. Only the first 120 characters of a few answers are kept, and
// nothing is written to the model.
// Errors: InvalidArgument (no ranking; resampling at all positions, which has
// no counterpart in shorter prompts; a criterion size that is not among the
// sizes), FailedPrecondition (no chat template).
absl::StatusOr<v1::AblationResults> RunAblation(const ExperimentContext& context,
                                                const AblationOptions& options);

// What the results depend on, for the journal.
Fingerprint AblationFingerprint(const ExperimentContext& context, const AblationOptions& options);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_ABLATION_H_
