#include "clients/experiments/pair_split.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace mechinterp {

PairSplit SplitPairs(const std::vector<PromptPair>& pairs, const std::vector<PromptPair>& validation) {
  constexpr size_t kEvery = 4;
  if (!validation.empty()) return {pairs, validation};
  if (pairs.size() < kEvery) return {pairs, pairs};
  PairSplit split;
  for (size_t i = 0; i < pairs.size(); ++i) {
    (i % kEvery == kEvery - 1 ? split.validation : split.training).push_back(pairs[i]);
  }
  return split;
}

absl::Status CheckDisjoint(const NamedPairs& one, const NamedPairs& other) {
  const auto same_text = [](const std::string& text) {
    return absl::AsciiStrToLower(absl::StripAsciiWhitespace(text));
  };
  std::map<std::string, std::string> seen;  // text, to the pair's id
  for (const PromptPair& pair : one.pairs) {
    seen.emplace(same_text(pair.harmful), pair.id);
    seen.emplace(same_text(pair.harmless), pair.id);
  }
  for (const PromptPair& pair : other.pairs) {
    for (const std::string* text : {&pair.harmful, &pair.harmless}) {
      const auto found = seen.find(same_text(*text));
      if (found == seen.end()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(other.option, ", pair \"", pair.id, "\": \"", *text, "\" is also in ", one.option,
                       ", pair \"", found->second, "\"; what is tested must have had no part in the choice"));
    }
  }
  return absl::OkStatus();
}

std::vector<PairCategory> CategoriesOf(const std::vector<PromptPair>& pairs) {
  std::vector<PairCategory> categories;
  for (const PromptPair& pair : pairs) {
    auto found = std::find_if(categories.begin(), categories.end(),
                              [&](const PairCategory& category) { return category.name == pair.category; });
    if (found == categories.end()) found = categories.insert(categories.end(), {pair.category, {}});
    found->pairs.push_back(&pair);
  }
  return categories;
}

}  // namespace mechinterp
