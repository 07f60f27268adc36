#include "clients/experiments/direction_subspace.h"

#include <algorithm>

#include "clients/experiments/direction_edits.h"
#include "clients/experiments/direction_vectors.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

absl::StatusOr<PrincipalComponents> FindComponents(DirectionParts& parts, const DirectionProbe& probe,
                                                   const SubspaceSearch& search) {
  constexpr int kMostGradientDirections = 32;
  constexpr double kNearlyAll = 0.99;   // of the gradients' squares
  constexpr int kRunsOfGradients = 22;  // about: forward and back, twice and at each of the steps
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<std::vector<float>> differences,
                            parts.OfTrainingPairs("differences of pairs", search.site, 2,
                                                  [&](const v1::Prompt& harmful, const v1::Prompt& harmless) {
                                                    return probe.Difference(harmful, harmless, search.site);
                                                  }));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<std::vector<float>> gradients,
                            parts.OfTrainingPairs("gradients", search.site, kRunsOfGradients,
                                                  [&](const v1::Prompt& harmful, const v1::Prompt& harmless) {
                                                    return probe.Gradients(harmful, harmless, search.site);
                                                  }));
  const PrincipalComponents read = FindPrincipalComponents(gradients, kMostGradientDirections);
  size_t count = 0;
  for (double share = 0; count < read.directions.size() && share < kNearlyAll; ++count) {
    share += read.shares[count];
  }
  double all = 0, within = 0;  // of the differences' squares
  for (std::vector<float>& difference : differences) {
    all += Dot(difference, difference);
    difference = PartWithin(difference, absl::MakeConstSpan(read.directions).first(count));
    within += Dot(difference, difference);
  }
  // No more than so many edits may be in force in a run: three sites in every layer for each direction, and
  // what is put in their place.
  constexpr int kMostEdits = 4096;
  const int layers = search.harmless_mean.layer_count;
  const int most_rank = std::min(search.most_rank, (kMostEdits - layers) / (3 * layers));
  PrincipalComponents components = FindPrincipalComponents(differences, most_rank);
  for (double& share : components.shares) share *= all > 0 ? within / all : 0;
  return components;
}

// The index of the smallest that is about as good as the best; of the first where none is within the
// bound of KL.
size_t Choose(const std::vector<v1::DirectionSubspace>& tried, const SubspaceSearch& search) {
  // What may be left of what the best takes away.
  constexpr double kAsGood = 0.05;
  double lowest = search.harmful_log_odds;
  for (const v1::DirectionSubspace& subspace : tried) {
    if (subspace.kl() <= search.most_kl) lowest = std::min(lowest, subspace.bypass());
  }
  const double good_enough = lowest + kAsGood * (search.harmful_log_odds - lowest);
  const auto found = std::find_if(tried.begin(), tried.end(), [&](const v1::DirectionSubspace& subspace) {
    return subspace.kl() <= search.most_kl && subspace.bypass() <= good_enough;
  });
  return found == tried.end() ? 0 : static_cast<size_t>(found - tried.begin());
}

}  // namespace

absl::StatusOr<Subspace> FindSubspace(DirectionParts& parts, const DirectionProbe& probe,
                                      const SubspaceSearch& search) {
  ABSTRACT_ASSIGN_OR_RETURN(const PrincipalComponents components, FindComponents(parts, probe, search));
  const auto leading = [&](size_t rank) { return absl::MakeConstSpan(components.directions).first(rank); };
  std::vector<EditSet> sets;
  for (size_t rank = 1; rank <= components.directions.size(); ++rank) {
    sets.push_back(SetToMean(leading(rank), search.harmless_mean, search.site.position));
  }
  if (sets.empty()) return Subspace{};
  ABSTRACT_ASSIGN_OR_RETURN(const DirectionParts::Parts harmful,
                            parts.ScoreOnValidation("subspaces", v1::PROMPT_CLASS_HARMFUL, sets));
  ABSTRACT_ASSIGN_OR_RETURN(const DirectionParts::Parts harmless,
                            parts.ScoreOnValidation("subspaces", v1::PROMPT_CLASS_HARMLESS, sets));
  Subspace result;
  double explained = 0;
  for (size_t i = 0; i < sets.size(); ++i) {
    v1::DirectionSubspace& subspace = result.tried.emplace_back();
    explained += components.shares[i];
    subspace.set_rank(static_cast<uint32_t>(i + 1));
    subspace.set_bypass(MeanLogOdds(harmful, i));
    subspace.set_kl(MeanKl(harmless, i));
    subspace.set_explained_share(std::min(1.0, explained));
  }
  v1::DirectionSubspace& chosen = result.tried[Choose(result.tried, search)];
  chosen.set_is_chosen(true);
  const auto directions = leading(chosen.rank());
  result.directions.assign(directions.begin(), directions.end());
  return result;
}

EditSet SetToMean(absl::Span<const std::vector<float>> units, const StreamVectors& mean, int position) {
  std::vector<absl::Span<const float>> at_position;
  for (int layer = 0; layer < mean.layer_count; ++layer) at_position.push_back(mean.at(layer, position));
  return SetPart(units, at_position);
}

}  // namespace mechinterp
