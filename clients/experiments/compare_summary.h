#ifndef CLIENTS_EXPERIMENTS_COMPARE_SUMMARY_H_
#define CLIENTS_EXPERIMENTS_COMPARE_SUMMARY_H_

#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// Fills everything that CompareResults says of the prompts together from
// `results.prompts`, and marks the positions that repeat an earlier prompt's
// context. Intervals are drawn by provenance.seed. Needs layer_count, and that
// at least one prompt has a position.
void SummarizeComparison(v1::CompareResults& results);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_COMPARE_SUMMARY_H_
