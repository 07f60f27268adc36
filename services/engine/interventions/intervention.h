#ifndef SERVICES_ENGINE_INTERVENTIONS_INTERVENTION_H_
#define SERVICES_ENGINE_INTERVENTIONS_INTERVENTION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "services/engine/base/host_tensor.h"
#include "services/engine/interventions/hook_point.h"
#include "services/engine/interventions/positions.h"

namespace mechinterp::engine {

// An intervention is a site, the part of it that is touched, and an edit. These
// are plain values, as a client asked for them; hook_plan.h compiles them.

// The activation of one site in a run: values [positions, heads, width].
struct RecordedActivation {
  HostTensor values;
  std::vector<int> positions;  // ascending; row i of values is positions[i]
};

// What a run left behind. Immutable once shared.
struct RecordedRun {
  TokenizedPrompt prompt;
  std::map<HookSite, RecordedActivation> activations;
};

enum class InterventionScope { kDefault, kPrompt, kGenerated, kPromptAndGenerated };

// Empty fields select everything. Heads and dims may come in any order; values
// given for them are in ascending order.
struct Selector {
  std::vector<int> heads;
  std::vector<int> dims;
  PositionSelector positions;
  InterventionScope scope = InterventionScope::kDefault;
};

enum class PositionAlignment { kDefault, kStart, kEnd };

// Where values come from: sent along, a run that was kept, or another prompt's
// clean run, yet to be made. A null run, or a tensor without shape and values,
// stands for a source that could not be read and has been reported.
struct ActivationSource {
  std::variant<HostTensor, std::shared_ptr<const RecordedRun>, TokenizedPrompt> origin;
  std::optional<HookSite> site;               // in the run; default: the intervention's
  std::optional<PositionSelector> positions;  // in the run; default: the target's selector
  PositionAlignment alignment = PositionAlignment::kDefault;
};

struct Replacement {
  ActivationSource source;
};
struct Zeroing {};
enum class MeanAxis { kSourcesAndPositions, kSources };
struct MeanReplacement {
  std::vector<ActivationSource> sources;
  MeanAxis axis = MeanAxis::kSourcesAndPositions;
};
struct Resampling {
  std::vector<ActivationSource> sources;
  uint64_t seed = 0;
};
struct Addition {
  HostTensor vector;
  double scale = 1;
};
struct Scaling {
  double factor = 1;
};
struct ProjectionRemoval {
  HostTensor direction;
};
struct NoiseAddition {
  double standard_deviation = 0;
  uint64_t seed = 0;
};

// Path patching (Wang et al. 2022), at what reads the residual stream: adds what a sender writes to
// the stream in the source's run less what it writes in this prompt's clean run, so that this
// reader alone sees the sender's source value.
struct PathPatch {
  HookSite sender;                 // hook_embed, hook_result, hook_attn_out or hook_mlp_out
  std::optional<int> sender_head;  // with hook_result
  ActivationSource source;         // another prompt, or a run that was kept
};

using Edit = std::variant<Replacement, Zeroing, MeanReplacement, Resampling, Addition, Scaling,
                          ProjectionRemoval, NoiseAddition, PathPatch>;

struct Intervention {
  HookSite site;
  Selector selector;
  Edit edit;
  // Where it stands in what a client sent, by which errors name it. Default: as in its set.
  std::optional<size_t> request_index = {};
};

// Interventions that are applied jointly, in the order given.
using InterventionSet = std::vector<Intervention>;

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_INTERVENTION_H_
