#ifndef CLIENTS_EXPERIMENTS_DIRECTION_PARTS_H_
#define CLIENTS_EXPERIMENTS_DIRECTION_PARTS_H_

#include <functional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "clients/experiments/direction_probe.h"
#include "clients/experiments/pair_split.h"

namespace mechinterp {

// The direction experiment's measurements, a part of the journal for each prompt or pair, several at a
// time. All it is given must outlive it. Not thread-safe.
class DirectionParts {
 public:
  using Parts = std::vector<v1::DirectionPart>;

  DirectionParts(const ExperimentContext& context, const DirectionProbe& probe, const PairSplit& split)
      : context_(context), probe_(probe), split_(split) {}

  // Of each validation prompt of a class, so many values. `runs`: model runs of one. `stage` names the
  // progress and, with the class, the journal's keys.
  absl::StatusOr<Parts> OnValidation(
      std::string_view stage, v1::PromptClass prompt_class, size_t value_count, int runs,
      const std::function<absl::StatusOr<v1::DirectionPart>(const v1::Prompt& prompt)>& compute);
  // What edits do to each validation prompt of a class: DirectionProbe::Score of all sets.
  absl::StatusOr<Parts> ScoreOnValidation(std::string_view stage, v1::PromptClass prompt_class,
                                          absl::Span<const EditSet> sets);
  // Vectors of each training pair at a site, up to three of each.
  absl::StatusOr<std::vector<std::vector<float>>> OfTrainingPairs(
      std::string_view stage, const StreamSite& site, int runs,
      const std::function<absl::StatusOr<v1::DirectionPart>(const v1::Prompt& harmful,
                                                            const v1::Prompt& harmless)>& compute);

  // Model runs so far, those that a journal had too.
  int run_count() const { return run_count_; }
  void AddRuns(int count) { run_count_ += count; }

 private:
  const ExperimentContext& context_;
  const DirectionProbe& probe_;
  const PairSplit& split_;
  int run_count_ = 0;
};

// The mean of the index-th value. At least one part.
double MeanValue(const DirectionParts::Parts& parts, int index);
// Of the parts of Score: the mean log-odds without edits, with those of a set, and the KL then.
inline double MeanCleanLogOdds(const DirectionParts::Parts& parts) { return MeanValue(parts, 0); }
inline double MeanLogOdds(const DirectionParts::Parts& parts, size_t set) {
  return MeanValue(parts, static_cast<int>(2 * set) + 1);
}
inline double MeanKl(const DirectionParts::Parts& parts, size_t set) {
  return MeanValue(parts, static_cast<int>(2 * set) + 2);
}

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_DIRECTION_PARTS_H_
