#ifndef CLIENTS_EXPERIMENTS_SUMMARIES_H_
#define CLIENTS_EXPERIMENTS_SUMMARIES_H_

#include <cstdint>

#include "absl/types/span.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// Statistics as results messages. Pure functions.

// With a Wilson interval; rate 0 of 0 is [0, 1].
v1::Rate MakeRate(int success_count, int total_count);

// Mean with a percentile bootstrap interval.
v1::Estimate MakeEstimate(absl::Span<const double> samples, uint64_t seed);

// Share of the responses of a class that were refused, anywhere in the text or
// at its start.
v1::Rate RefusalRate(absl::Span<const v1::JudgedResponse> responses, v1::PromptClass prompt_class,
                     bool at_start = false);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_SUMMARIES_H_
