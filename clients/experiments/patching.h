#ifndef CLIENTS_EXPERIMENTS_PATCHING_H_
#define CLIENTS_EXPERIMENTS_PATCHING_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/experiment.h"
#include "clients/experiments/metric_tokens.h"

namespace mechinterp {

struct PatchingOptions {
  std::vector<PromptPair> pairs;
  Openings openings;
  std::vector<v1::PatchDirection> directions = {v1::PATCH_DIRECTION_DENOISING, v1::PATCH_DIRECTION_NOISING};
  // Positions counted from the end (negative). Empty: the decision positions,
  // that is the last instruction token and the template's tail.
  std::vector<int32_t> positions;
  // Every position instead; pairs of unequal length are left out then.
  bool all_positions = false;
  // 0: a sixteenth of the layer's neurons, rounded up.
  int neurons_per_group = 0;
};

// Which components carry refusal: for every pair and direction, activations of
// one prompt are put into the run of the other. The residual stream, attention
// and MLP outputs are patched one layer and position at a time, each head's z
// and each group of neurons at all the positions together. Effects are averaged
// over pairs with bootstrap intervals; heads and neuron groups are ranked.
// Errors: FailedPrecondition for a model without chat template;
// InvalidArgument when no pair is left.
absl::StatusOr<v1::PatchingResults> RunPatching(const ExperimentContext& context,
                                                const PatchingOptions& options);

// What the results depend on, for the journal.
Fingerprint PatchingFingerprint(const ExperimentContext& context, const PatchingOptions& options);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_PATCHING_H_
