#ifndef DATA_TRAINER_PROMPT_PAIRS_H_
#define DATA_TRAINER_PROMPT_PAIRS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mechinterp::trainer {

// Two requests of one form, one harmful and one not, as data/prompts.json and
// data/heldout_prompts.json hold them. Only requests; never an answer.
struct PromptPair {
  std::string id;
  std::string category;
  std::string harmful;
  std::string harmless;
};

struct PromptSet {
  int version = 1;
  std::string notice;
  std::vector<PromptPair> pairs;
};

// Errors: NotFound, or InvalidArgument naming the file and the pair: a missing
// or empty field, an id or a prompt that occurs twice.
absl::StatusOr<PromptSet> LoadPrompts(const std::string& path);
absl::Status WritePrompts(const std::string& path, const PromptSet& prompts);

// The phrases by which a completion is judged a refusal
// (data/refusal_phrases.json, "phrases").
absl::StatusOr<std::vector<std::string>> LoadRefusalPhrases(const std::string& path);

// True when a phrase occurs anywhere in `completion`, whatever the case; curly
// apostrophes count as straight ones.
bool IsRefusal(const std::string& completion, const std::vector<std::string>& phrases);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_PROMPT_PAIRS_H_
