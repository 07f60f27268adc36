#ifndef CLIENTS_EXPERIMENTS_BASELINE_H_
#define CLIENTS_EXPERIMENTS_BASELINE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/experiment.h"
#include "clients/experiments/metric_tokens.h"

namespace mechinterp {

// A prompt without a counterpart.
struct LonePrompt {
  std::string id;
  std::string category;
  std::string text;
};

struct BaselineOptions {
  std::vector<PromptPair> pairs;
  // Harmless ones that look harmful, asked too.
  std::vector<LonePrompt> borderline;
  RefusalJudge judge{{}};
  Openings openings;
  int max_new_tokens = 64;
};

// How often the unchanged model refuses: every prompt of both classes is
// answered greedily and judged, its logit difference and refusal log-odds
// measured at the last position. Rates by category and in all, with Wilson
// intervals.
absl::StatusOr<v1::BaselineResults> RunBaseline(const ExperimentContext& context,
                                                const BaselineOptions& options);

// What the results depend on, for the journal.
Fingerprint BaselineFingerprint(const ExperimentContext& context, const BaselineOptions& options);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_BASELINE_H_
