#ifndef CLIENTS_EXPERIMENTS_PATCHING_SWEEPS_H_
#define CLIENTS_EXPERIMENTS_PATCHING_SWEEPS_H_

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/metric_tokens.h"
#include "clients/lib/model_client.h"
#include "clients/lib/prompts.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// The patching experiment's requests and how their answers read. Pure functions.

// What is patched in one sweep.
enum class SweepFamily {
  kResidual,  // resid_pre, attn_out, mlp_out by layer and position
  kHeads,     // z by layer and head
  kNeurons,   // mlp_post by layer and neuron group
};
inline constexpr std::array<SweepFamily, 3> kSweepFamilies = {SweepFamily::kResidual, SweepFamily::kHeads,
                                                              SweepFamily::kNeurons};

// Whose components those of this kind are.
SweepFamily FamilyOf(v1::ComponentKind kind);
// "residual", "heads", "neurons".
std::string_view SweepFamilyName(SweepFamily family);
// "denoising", "noising".
std::string_view DirectionName(v1::PatchDirection direction);

// The class of the prompt whose run is patched; the pair's other prompt is the
// source.
v1::PromptClass TargetClass(v1::PatchDirection direction);
v1::PromptClass SourceClass(v1::PatchDirection direction);

// `positions`: from the end; empty is all.
v1::RunPatchSweepRequest MakeSweep(SweepFamily family, const PromptPair& pair, v1::PatchDirection direction,
                                   const std::vector<int32_t>& positions, int neurons_per_group,
                                   const MetricTokens& tokens);

// What a run of a grid patched, named. `prompt_length`: tokens of the target.
absl::StatusOr<v1::Component> ComponentOf(const v1::SweepSite& site, int prompt_length);

// One effect per run of the sweep with the pair's value in pair_effects; empty
// there when the two clean runs do not differ. run_count is set.
absl::StatusOr<v1::PatchingResults> EffectsOf(const Sweep& sweep, v1::PatchDirection direction);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_PATCHING_SWEEPS_H_
