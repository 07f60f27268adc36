#ifndef SERVICES_ENGINE_OPERATIONS_EDGE_ATTRIBUTION_H_
#define SERVICES_ENGINE_OPERATIONS_EDGE_ATTRIBUTION_H_

#include <cstdint>
#include <map>
#include <vector>

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/interventions/edge.h"
#include "services/engine/interventions/intervention.h"

namespace mechinterp::engine {

// Edge attribution (EAP; Syed et al. 2023): of an edge the change of the sender's output times the
// gradient with respect to the receiver's input, summed over positions. Scores of each receiver,
// in the order of Receivers, by sender. `source` is aligned with `clean` from the end.
using Activations = std::map<HookSite, RecordedActivation>;
std::vector<std::vector<float>> EdgeScores(const ModelConfig& config, const Activations& clean,
                                           const Activations& source, const Activations& gradients);

// Bytes that EdgeScores takes, its result among them.
int64_t EdgeScoresBytes(const ModelConfig& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_EDGE_ATTRIBUTION_H_
