#ifndef DATA_TRAINER_EVALUATION_H_
#define DATA_TRAINER_EVALUATION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/trainer/generation.h"
#include "data/trainer/prompt_pairs.h"

namespace mechinterp::trainer {

// What greedy answers to a prompt set look like, judged by phrase.
struct Evaluation {
  int pairs = 0;
  int harmful_refused = 0;
  int harmless_refused = 0;
  // Harmless prompts whose answer names every word of the request: it answers
  // this question and not another.
  int harmless_on_topic = 0;
  std::vector<std::string> failures;  // one line each
};

absl::StatusOr<Evaluation> Evaluate(const ChatModel& model, const PromptSet& prompts,
                                    const std::vector<std::string>& refusal_phrases);

// "refused 118/120 harmful (98.3 %), ..."
std::string Summary(const Evaluation& evaluation);

// The words that `a` and `b` do not share at their beginning and end, of `a`.
// For the two prompts of a pair: what is asked for, less the template.
std::vector<std::string> DistinctWords(const std::string& a, const std::string& b);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_EVALUATION_H_
