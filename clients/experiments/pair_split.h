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

// Pairs, and the option that they came by.
struct NamedPairs {
  const char* option;
  const std::vector<PromptPair>& pairs;
};
// InvalidArgument, with the text and both options, where a prompt of one is also one of the other, but for
// the case of letters and space around it.
absl::Status CheckDisjoint(const NamedPairs& one, const NamedPairs& other);

// Pairs of one category, in the order in which categories first occur; the pairs must outlive them.
struct PairCategory {
  std::string name;
  std::vector<const PromptPair*> pairs;
};
std::vector<PairCategory> CategoriesOf(const std::vector<PromptPair>& pairs);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_PAIR_SPLIT_H_
