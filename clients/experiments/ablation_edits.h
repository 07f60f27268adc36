#ifndef CLIENTS_EXPERIMENTS_ABLATION_EDITS_H_
#define CLIENTS_EXPERIMENTS_ABLATION_EDITS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "mechinterp/v1/hook.pb.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// How components are taken away. Pure functions.

struct AblationEdit {
  v1::AblationMethod method = v1::ABLATION_METHOD_MEAN;
  // Prompt positions from the end; empty: all. Generated positions always.
  std::vector<int32_t> positions;
  // Stored runs of the harmless prompts; not used by ZERO.
  std::vector<std::string> handles;
  // Which of them RESAMPLE takes.
  uint64_t seed = 0;
};

// The interventions that ablate heads and neuron groups together; those of one
// layer and kind share an intervention.
//
// MEAN puts at each selected prompt position the mean over the stored runs at
// the same distance from the end, and at generated positions (and everywhere,
// when all are selected) the mean over all runs and their positions. RESAMPLE
// puts one stored run's values at the prompt positions; generated positions,
// which no stored run has, get the mean. ZERO puts 0.
std::vector<v1::Intervention> AblationInterventions(absl::Span<const v1::Component> components,
                                                    const AblationEdit& edit);

// "mean", "zero", "resample".
std::string_view MethodName(v1::AblationMethod method);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_ABLATION_EDITS_H_
