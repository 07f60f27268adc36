#ifndef CLIENTS_EXPERIMENTS_DIRECTION_SUBSPACE_H_
#define CLIENTS_EXPERIMENTS_DIRECTION_SUBSPACE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "clients/experiments/direction_parts.h"
#include "clients/experiments/stream_vectors.h"

namespace mechinterp {

// Where several directions are looked for, and what they are compared with.
struct SubspaceSearch {
  StreamSite site;
  const StreamVectors& harmless_mean;
  double harmful_log_odds = 0;  // mean, of the validation prompts without edits
  double most_kl = 0.1;
  int most_rank = 4;
};

struct Subspace {
  std::vector<v1::DirectionSubspace> tried;    // by rank; one is chosen
  std::vector<std::vector<float>> directions;  // the chosen one's, orthonormal; none where nothing differs
};

// The principal components of what the training pairs differ by at the site, in as far as it lies where
// the gradients of the refusal log-odds do: of what else goes along with harm, gradients know nothing.
// The fewest are chosen that do about what the best do, when they are set to the harmless mean.
absl::StatusOr<Subspace> FindSubspace(DirectionParts& parts, const DirectionProbe& probe,
                                      const SubspaceSearch& search);

// Affine editing at one position, with the means of a stream there.
EditSet SetToMean(absl::Span<const std::vector<float>> units, const StreamVectors& mean, int position);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_DIRECTION_SUBSPACE_H_
