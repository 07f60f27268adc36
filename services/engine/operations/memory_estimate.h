#ifndef SERVICES_ENGINE_OPERATIONS_MEMORY_ESTIMATE_H_
#define SERVICES_ENGINE_OPERATIONS_MEMORY_ESTIMATE_H_

#include <cstdint>
#include <vector>

#include "services/engine/interventions/plan_compiler.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {

// How many bytes the engine's operations hold beside the weights while they run,
// from sizes alone, before anything is computed. Upper estimates of what lives
// at the same time; small things (token ids, text) are left out. Stateless,
// thread-safe.

// Keys and values of so many positions.
int64_t KeyValueBytes(const ModelConfig& config, int64_t positions);

// Activations of these sites over so many positions of a prompt.
int64_t ActivationBytes(const ModelConfig& config, const std::vector<HookSite>& sites, int64_t positions,
                        int64_t prompt_length);

// What the compiler's plans take: the runs that their edits read, the values, and
// what hooks at some points need while they work.
int64_t PlanBytes(const ModelConfig& config, const PlanCompiler& compiler);

// A prompt that is run and continued by so many tokens.
int64_t GenerationBytes(const ModelConfig& config, int64_t prompt_length, int64_t new_tokens);

// RunWithPatch: the clean and the patched run, each continued.
int64_t PatchRunBytes(const ModelConfig& config, int64_t prompt_length, int64_t new_tokens,
                      const MetricOptions& metrics);

// RunPatchSweep, whose runs begin at `entries`, in batches of `batch_rows`.
// `source_length`: of the source prompt, 0 without one.
int64_t SweepBytes(const ModelConfig& config, int64_t prompt_length, int64_t source_length,
                   const std::vector<EntryPoint>& entries, const MetricOptions& metrics, int64_t batch_rows);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_MEMORY_ESTIMATE_H_
