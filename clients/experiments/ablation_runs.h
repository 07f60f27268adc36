#ifndef CLIENTS_EXPERIMENTS_ABLATION_RUNS_H_
#define CLIENTS_EXPERIMENTS_ABLATION_RUNS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/experiment.h"
#include "clients/experiments/stored_sources.h"

namespace mechinterp {

// One set of components ablated in one way, to be asked every prompt.
struct Condition {
  std::string name;  // "mean top 5", "mean random 5 draw 2"; unique.
  v1::AblationMethod method = v1::ABLATION_METHOD_MEAN;
  std::vector<v1::Component> components;
};

// How the conditions' prompts are run and judged.
struct AblationRunner {
  const ExperimentContext& context;
  const RefusalJudge& judge;
  StoredSources& sources;
  std::vector<int32_t> positions;  // From the end; empty is all.
  int max_new_tokens = 64;

  // Asks every prompt under every condition and judges the answers. Result
  // [condition][prompt]. `stage` names the progress and the journal's keys.
  absl::StatusOr<std::vector<std::vector<v1::JudgedResponse>>> Run(const std::string& stage,
                                                                   const std::vector<Condition>& conditions,
                                                                   const std::vector<StudyPrompt>& prompts);

 private:
  absl::StatusOr<v1::JudgedResponse> Ask(const Condition& condition, const StudyPrompt& prompt,
                                         uint64_t prompt_index);
};

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_ABLATION_RUNS_H_
