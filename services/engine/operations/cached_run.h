#ifndef SERVICES_ENGINE_OPERATIONS_CACHED_RUN_H_
#define SERVICES_ENGINE_OPERATIONS_CACHED_RUN_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/plan_compiler.h"

namespace mechinterp::engine {

// Runs a prompt once and records what the plan captures.
absl::StatusOr<std::shared_ptr<const RecordedRun>> RunWithCache(RunContext& context,
                                                                const TokenizedPrompt& prompt,
                                                                std::shared_ptr<const HookPlan> plan);

// Makes the runs that the compiler's edits read, together, and finishes its
// plans. Call after Add reported no problems.
absl::StatusOr<std::vector<std::shared_ptr<const HookPlan>>> RunSourcesAndFinish(
    RunContext& context, const PlanCompiler& compiler);

// Bytes of the activations of these sites over so many positions of a prompt.
int64_t ActivationBytes(const ModelConfig& config, const std::vector<HookSite>& sites, int64_t positions,
                        int64_t prompt_length);

// Bytes of a request: what its compiler's plans take while it lasts, and the larger of making
// them (the runs that their edits read) and of what it then does, which takes `run_bytes`.
// `pass_rows`: the most rows of a forward pass.
int64_t RequestBytes(const ModelConfig& config, const PlanCompiler& compiler, int64_t pass_rows,
                     int64_t run_bytes);

// An activation's values in the order that clients see: its own, or, where that is another,
// a copy in `room`.
const std::vector<float>& InPublicOrder(HookPoint point, const RecordedActivation& recorded,
                                        std::vector<float>& room);

// An activation in the shape that clients see (PublicShape).
HostTensor ToPublicShape(HookPoint point, const ModelConfig& config, const RecordedActivation& recorded);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_CACHED_RUN_H_
