#ifndef SERVICES_ENGINE_OPERATIONS_LOGIT_LENS_H_
#define SERVICES_ENGINE_OPERATIONS_LOGIT_LENS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/hook_plan.h"
#include "services/engine/interventions/positions.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {

// The logit lens (nostalgebraist 2020): what the model would predict if the residual stream at a
// site went straight into the last norm and the unembedding. Logits are measured where they are
// made, kHeadRowsPerBlock rows at a time.
struct LensRequest {
  TokenizedPrompt prompt;
  std::shared_ptr<const HookPlan> plan;  // edits in force, the head's in every reading; may be null
  std::vector<int> positions;            // ascending, at least one
  bool resid_mid = false;                // whether the stream between attention and MLP is read too
  MetricOptions metrics;                 // without openings
  // The token whose probability is followed; unset: at each position the likeliest in the end.
  std::optional<TokenId> target;
};

struct LensReading {
  HookSite site;
  int position = 0;
  RunMetrics metrics;  // kl_from_clean: from the last site's distribution, 0 there
  TokenProbability target;
  double target_log_probability = 0;  // natural logarithm
  int64_t target_rank = 0;            // how many tokens are likelier; of equal ones the lower id is
};

// Where it reads, in the order of the pass: resid_pre (and resid_mid) of every layer, and the last
// resid_post, whose reading is of the run's own logits.
std::vector<HookSite> LensSites(const ModelConfig& config, bool resid_mid);

// Position by position, the readings in the order of LensSites; fails as `sink` does.
absl::Status RunLogitLens(RunContext& context, const LensRequest& request,
                          const std::function<absl::Status(const LensReading&)>& sink);

// Bytes that it takes, besides its plan.
int64_t LensBytes(const ModelConfig& config, const LensRequest& request);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_LOGIT_LENS_H_
