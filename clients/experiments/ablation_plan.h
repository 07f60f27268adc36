#ifndef CLIENTS_EXPERIMENTS_ABLATION_PLAN_H_
#define CLIENTS_EXPERIMENTS_ABLATION_PLAN_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mechinterp/v1/model_service.pb.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// Which components an ablation takes away. Pure functions.

// InvalidArgument, naming the first entries at fault, for a ranking of what the model does
// not have: it comes from a file, and what is ablated is listed neuron by neuron.
absl::Status CheckRanking(absl::Span<const v1::RankedComponent> ranking, const v1::GetModelResponse& model);

// The first `count` of the ranking.
std::vector<v1::Component> TopComponents(absl::Span<const v1::RankedComponent> ranking, int count);

// As many heads and as many neuron groups as the top `count` has, drawn without
// replacement from the rest of the ranking. The same seed and draw give the same
// components on every platform. Nothing when the rest has too few of a kind.
std::optional<std::vector<v1::Component>> RandomComponents(absl::Span<const v1::RankedComponent> ranking,
                                                           int count, int draw, uint64_t seed);

// Share of the model's parameters that the components own: a head its columns of
// the query and output projections and its part of the key and value heads it
// shares; a neuron its gate, up and down weights.
double ParameterShare(absl::Span<const v1::Component> components, const v1::GetModelResponse& model);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_ABLATION_PLAN_H_
