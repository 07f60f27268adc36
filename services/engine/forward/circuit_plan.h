#ifndef SERVICES_ENGINE_FORWARD_CIRCUIT_PLAN_H_
#define SERVICES_ENGINE_FORWARD_CIRCUIT_PLAN_H_

#include <map>
#include <memory>
#include <vector>

#include "services/engine/interventions/circuit.h"
#include "services/engine/interventions/intervention.h"

namespace mechinterp::engine {

// What a circuit's segment goes by. Immutable; shared between threads.
struct CircuitPlan {
  Circuit circuit;
  // Of the source prompt's clean run, as long as the segment: CircuitSourceSites, at all positions.
  std::shared_ptr<const std::map<HookSite, RecordedActivation>> source;
};

// What stays as it is in the source's run, and what changes are taken from: the embedding, of each
// layer q, k, v before RoPE, z, mlp_post and the residual stream where it is read, and resid_post
// of the last.
std::vector<HookSite> CircuitSourceSites(const ModelConfig& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_CIRCUIT_PLAN_H_
