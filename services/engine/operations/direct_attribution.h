#ifndef SERVICES_ENGINE_OPERATIONS_DIRECT_ATTRIBUTION_H_
#define SERVICES_ENGINE_OPERATIONS_DIRECT_ATTRIBUTION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/hook_plan.h"
#include "services/engine/interventions/positions.h"
#include "services/engine/operations/edge_attribution.h"

namespace mechinterp::engine {

// Direct logit attribution (Elhage et al. 2021): the residual stream is a sum, and, with the last
// norm's scale held as it is in the run, so is the difference of logits that it makes. What a
// sender writes, times the direction gain * (mean u_R - mean u_C) / scale, is its term; u are the
// unembedding's rows. The direction is pulled back through the output matrices to z and to the
// neurons (BackwardRule::kDirect): beside the prompt's run, a position takes a step of decoding and,
// back, a product with the unembedding and with each layer's two output matrices.
struct DirectAttributionRequest {
  TokenizedPrompt prompt;
  std::shared_ptr<const HookPlan> plan;  // edits in force; may be null
  std::vector<int> positions;            // whose logits are explained; ascending, at least one
  std::vector<TokenId> refusal_token_ids, compliance_token_ids;  // without repetitions, not empty
  int neuron_count = 0;                                          // how many single neurons are wanted
  int edited_result_layers = 0;  // in how many layers the plan edits hook_result; for the estimate of bytes
};

struct NeuronContribution {
  int layer = 0;
  int64_t neuron = 0;
  double value = 0;
};

// Of one position, in logits.
struct DirectAttribution {
  int position = 0;
  // The mean of the refusal tokens' logits less that of the compliance tokens'. Not RunMetrics'
  // logit_difference, which is of logsumexps, unless there is one token each.
  double logit_difference = 0;
  std::vector<double> senders;  // of each of Senders()
  // What attention's output biases add, of which no head has a share; unset where there are none.
  // An MLP's is in its own term.
  std::optional<double> biases;
  // The largest by absolute value first: parts of the MLPs' terms.
  std::vector<NeuronContribution> neurons;

  // Of the senders and the biases. The logit difference, but for roundings of the products'
  // operands, and for what edits put between a sender and the logits: by a linear edit (scaling,
  // projection) a term is what it leaves of it, but what one sets or adds is in no term.
  double Sum() const;
};

// Position by position; fails as `sink` does.
absl::Status AttributeDirectly(RunContext& context, const DirectAttributionRequest& request,
                               const std::function<absl::Status(const DirectAttribution&)>& sink);

// Bytes that it takes, besides its plan.
int64_t DirectAttributionBytes(const ModelConfig& config, const DirectAttributionRequest& request);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_DIRECT_ATTRIBUTION_H_
