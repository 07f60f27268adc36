#ifndef CLIENTS_EXPERIMENTS_COMPARE_RUNS_H_
#define CLIENTS_EXPERIMENTS_COMPARE_RUNS_H_

#include "absl/status/statusor.h"
#include "clients/experiments/compare.h"

namespace mechinterp {

// Tokenizes one prompt, runs it on both servers and measures. Thread-safe;
// errors as RunCompare's.
absl::StatusOr<v1::PromptComparison> ComparePrompt(const ExperimentContext& context,
                                                   const CompareOptions& options,
                                                   const ComparedPrompt& prompt);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_COMPARE_RUNS_H_
