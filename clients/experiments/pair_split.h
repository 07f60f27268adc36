#ifndef CLIENTS_EXPERIMENTS_PAIR_SPLIT_H_
#define CLIENTS_EXPERIMENTS_PAIR_SPLIT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "clients/lib/prompts.h"

namespace mechinterp {

// Which pairs a thing is made on and which it is chosen on.
struct PairSplit {
  std::vector<PromptPair> training;
  std::vector<PromptPair> validation;
};

// `validation`, where there are any; else every fourth of the pairs is kept for that, and of fewer than
// four all are both.
PairSplit SplitPairs(const std::vector<PromptPair>& pairs, const std::vector<PromptPair>& validation);

// InvalidArgument, with the text, where a prompt of `tested` is also one of `chosen`.
absl::Status CheckDisjoint(const std::vector<PromptPair>& chosen, const std::vector<PromptPair>& tested);

// Pairs of one category, in the order in which categories first occur; the pairs must outlive them.
struct PairCategory {
  std::string name;
  std::vector<const PromptPair*> pairs;
};
std::vector<PairCategory> CategoriesOf(const std::vector<PromptPair>& pairs);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_PAIR_SPLIT_H_
