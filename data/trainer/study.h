#ifndef DATA_TRAINER_STUDY_H_
#define DATA_TRAINER_STUDY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/trainer/generation.h"
#include "data/trainer/prompt_pairs.h"

namespace mechinterp::trainer {

// Is the model worth studying? A check with the trainer's own forward pass, kept
// small on purpose: the project's tools do the real study.
//
// Attention heads, and groups of MLP neurons apart from them, are ranked by
// activation patching (noising: the harmless twin's activation put into the
// harmful run, effect on the refusal log-odds) and ablated cumulatively, by
// their mean over harmless prompts, beside random components of the same kind.
// Returns the report as text.
absl::StatusOr<std::string> Study(const ChatModel& model, const PromptSet& prompts, const PromptSet& heldout,
                                  const std::vector<std::string>& refusal_phrases, uint64_t seed);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_STUDY_H_
