#ifndef TESTS_BENCHMARKS_TRUTH_SCORES_H_
#define TESTS_BENCHMARKS_TRUTH_SCORES_H_

#include <string>
#include <vector>

#include "absl/types/span.h"

namespace mechinterp::benchmarks {

// How scores agree with what is true. Pure functions.

// Of one or many models, pooled.
struct Counts {
  int found_true = 0;
  int found_false = 0;
  int missed = 0;
  double auroc_sum = 0;
  int auroc_count = 0;

  void Add(const Counts& other);
  double precision() const;  // 1 where nothing was found
  double recall() const;     // 1 where there was nothing to find
  double auroc() const;      // NaN where it is none
};

// Scores of many things by size, those from `least` on being found, against which of them are true.
Counts Judge(absl::Span<const double> scores, const std::vector<bool>& truth, double least);

// Area under the receiver operating characteristic: the probability that one that is true scores higher
// than one that is not, ties counting half (Mann & Whitney 1947). NaN where all or none are true.
double Auroc(absl::Span<const double> scores, const std::vector<bool>& truth);

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_TRUTH_SCORES_H_
