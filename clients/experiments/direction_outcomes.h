#ifndef CLIENTS_EXPERIMENTS_DIRECTION_OUTCOMES_H_
#define CLIENTS_EXPERIMENTS_DIRECTION_OUTCOMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/direction.h"
#include "clients/experiments/direction_probe.h"

namespace mechinterp {

// One way to change the model, to be tested.
struct DirectionCondition {
  std::string name;  // "ablation", "random ablation 3"; unique
  v1::DirectionEdit edit = v1::DIRECTION_EDIT_NONE;
  uint64_t seed = 0;
  EditSet edits;
};

// What each condition does to the test pairs: answers, judged; the metric and the KL at the last
// prompt position; cross-entropy. The first condition must be that without edits, whose answers are the
// texts of which the others' cross-entropies are.
absl::StatusOr<std::vector<v1::DirectionOutcome>> TestConditions(
    const ExperimentContext& context, const DirectionOptions& options, const DirectionProbe& probe,
    const std::vector<DirectionCondition>& conditions);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_DIRECTION_OUTCOMES_H_
