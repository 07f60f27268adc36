#ifndef SERVICES_COMMON_RANKING_H_
#define SERVICES_COMMON_RANKING_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// Heads and neuron groups by the mean of their denoising and noising effects
// (the direction that was measured, if only one was), best first; ties by layer
// and name. Other kinds of component are skipped.
std::vector<v1::RankedComponent> RankComponents(absl::Span<const v1::ComponentEffect* const> effects);

// For each layer in [0, layer_count): the sum of its ranked components' positive
// scores, in all and by kind.
std::vector<v1::LayerImportance> ImportanceByLayer(absl::Span<const v1::RankedComponent> ranking,
                                                   int layer_count);

// Adds `ranking` and `layers` where they are missing. The client of the experiment writes
// them with the results, and everyone else takes those: this is for results that other
// programs made. layer_count must be sound.
void AddMissingRanking(v1::PatchingResults& results);

// "L3.H5", "L4.N0-31" (inclusive), "L2.attn_out@-1".
std::string ComponentName(const v1::Component& component);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_RANKING_H_
