#ifndef CLIENTS_LIB_PROMPT_IMPORT_H_
#define CLIENTS_LIB_PROMPT_IMPORT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/lib/prompts.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// Sets of prompts that others publish, as they publish them, and the project's own. Which one a file is
// its columns or fields tell (.csv; .json: a list of objects, or .jsonl: one a line):
// - advbench: goal, target
// - harmbench: Behavior, SemanticCategory, ContextString, BehaviorID; the context is put before it
// - jailbreakbench: Index, Goal, Behavior, Category
// - strongreject: category, source, forbidden_prompt
// - xstest: prompt, type, label (or types that begin with "contrast_"); safe ones are borderline
// - or-bench: prompt, category; borderline
// - alpaca: instruction, input, output; the input comes after a blank line
// - refusal-direction: instruction, category
// - list: {"version": 1, "prompts": [{"id", "category", "text"}]}; borderline
// - lines: of .txt, or without an ending: a line is a prompt
// Answers that such files hold beside their prompts are not read.

struct ListedPrompt {
  std::string id;  // the file's, or "advbench-17", counted from 1
  std::string category;
  std::string text;
  // As the file tells; unspecified where it does not.
  v1::PromptClass prompt_class = v1::PROMPT_CLASS_UNSPECIFIED;
};

struct PromptList {
  v1::PromptSource source;
  std::vector<ListedPrompt> prompts;
};

// Those of the file that are of this class, or of an untold one; the first `limit` of them (0: all).
// Errors name the file: NotFound; InvalidArgument for a file of none of these kinds, prompts that are
// empty or not UTF-8, ids that occur twice, and where nothing is left.
absl::StatusOr<PromptList> LoadPromptList(const std::string& path, v1::PromptClass prompt_class,
                                          int limit = 0);

// One of each list at a time, as long as there are: pairs in name only, for what needs no more than two
// sets. Their ids are "HARMFUL/HARMLESS", categories the harmful ones'.
std::vector<PromptPair> PairUp(const PromptList& harmful, const PromptList& harmless);

// What is told of a file of pairs.
absl::StatusOr<v1::PromptSource> DescribePairs(const std::string& path, const std::vector<PromptPair>& pairs);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_PROMPT_IMPORT_H_
