#ifndef SERVICES_ENGINE_OPERATIONS_ATTRIBUTION_H_
#define SERVICES_ENGINE_OPERATIONS_ATTRIBUTION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/hook_plan.h"
#include "services/engine/operations/edge_attribution.h"
#include "services/engine/operations/metric_gradient.h"

namespace mechinterp::engine {

// Estimates, from gradients, of what exact patching would find: how the metric of the clean run
// would change if a node had the value that it has in the source run.
enum class AttributionMethod {
  // (source - clean) . gradient in the clean run (AtP; Nanda 2023).
  kGradient,
  // The same, its size averaged over runs back that leave out one layer each, where paths may
  // cancel: the sum over layers of |score without layer l|, / (L - 1) (AtP*; Kramar et al. 2024).
  kGradDrop,
  // Gradients averaged over runs from embeddings clean + (k / m)(source - clean), k = 1 to m
  // (EAP-IG, inputs; Hanna et al. 2024). Prompts of one length.
  kIntegratedGradients,
  // RelP's coefficients in the gradient's place (Jafari et al. 2025).
  kRelevance,
};

// Two prompts, of which the source is aligned with the clean one from its end; positions of the
// clean one that the source has not score 0.
struct AttributionRequest {
  TokenizedPrompt clean;
  TokenizedPrompt source;
  std::shared_ptr<const HookPlan> plan;  // edits in force in the clean run; may be null
  MetricKind metric = MetricKind::kLogitDifference;
  // Of kOpenings, openings; nodes are those at the prompt's positions. Not with kIntegratedGradients or
  // exact_softmax.
  MetricOptions tokens;
  AttributionMethod method = AttributionMethod::kGradient;
  int steps = 5;  // of kIntegratedGradients, at least 1
  // At hook_q and hook_k: the softmax is computed anew, exactly, with the source's query, or with
  // its key at one position, and what it changes is multiplied by the pattern's gradient (AtP*'s
  // fix for saturated attention).
  bool exact_softmax = false;
  // Where scores are wanted: not scores, patterns, or what is in the head.
  std::vector<HookSite> sites;
  // Whether edges are scored too (edge_attribution.h); not by kGradDrop.
  bool edges = false;
  // Whether the gradients are wanted too; not by kGradDrop.
  bool with_gradients = false;
  // Whether the runs back keep what they need of every layer, or make it again.
  bool keeps_all_layers = true;
};

struct Attribution {
  double clean_metric = 0;
  double source_metric = 0;
  // Of each site [T, units]: a unit is a head where there is a head axis, a neuron at mlp.hook_pre,
  // hook_pre_linear and hook_post, elsewhere the whole position. In the metric's unit.
  std::map<HookSite, HostTensor> scores;
  // At the sites, with respect to the clean run's activations: of kIntegratedGradients the mean,
  // of kRelevance the coefficients.
  std::map<HookSite, RecordedActivation> gradients;
  // Of each of Receivers(), by its senders.
  std::vector<std::vector<float>> edges;
};

absl::StatusOr<Attribution> Attribute(RunContext& context, const AttributionRequest& request);

// Whether a site's nodes can be attributed to: not those of scores, patterns, or in the head.
bool HasNodes(HookPoint point);
// Units of a site's scores: 1, the heads, or the neurons.
int64_t UnitsOf(HookPoint point, const ModelConfig& config);

// Bytes that it takes, besides its plan, in batches of `batch_rows` rows.
int64_t AttributionBytes(const ModelConfig& config, const AttributionRequest& request, int batch_rows);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_ATTRIBUTION_H_
