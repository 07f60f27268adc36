#ifndef SERVICES_ENGINE_OPERATIONS_MEAN_ACTIVATIONS_H_
#define SERVICES_ENGINE_OPERATIONS_MEAN_ACTIVATIONS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/hook_plan.h"

namespace mechinterp::engine {

struct MeanActivationsRequest {
  std::vector<TokenizedPrompt> prompts;
  // One for each. Their captures are of the same sites, and at as many positions each.
  std::vector<std::shared_ptr<const HookPlan>> plans;
};

// Of each value of an activation [positions, heads, width], over the prompts.
struct ActivationMoments {
  std::vector<int64_t> shape;
  std::vector<double> mean;
  std::vector<double> variance;  // of a sample: / (prompts - 1); 0 of a single one
};

// Runs the prompts, many in a pass, and keeps of their activations what is returned only. Sums are in
// double precision and in the prompts' order (Welford 1962), so the answer does not depend on passes.
absl::StatusOr<std::map<HookSite, ActivationMoments>> RunMeanActivations(
    RunContext& context, const MeanActivationsRequest& request);

// Bytes that it takes besides the plans. `prompt_lengths`: of all prompts.
int64_t MeanActivationsBytes(const ModelConfig& config, const std::vector<HookSite>& sites, int64_t positions,
                             const std::vector<int>& prompt_lengths, int batch_rows);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_MEAN_ACTIVATIONS_H_
