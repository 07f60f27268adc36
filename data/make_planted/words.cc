#include "data/make_planted/words.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/chat/chat_template.h"

namespace mechinterp::make_planted {
namespace {

// Three suffice for an adjective before a noun; more would only hide a contradiction.
constexpr int kHighestLevel = 3;

// One prompt and the word of it that a class is to find there.
struct Designation {
  const std::vector<TokenId>* ids;
  TokenId word;
  bool of_harmful;
};

std::optional<size_t> OnlyDifference(const EncodedPair& pair) {
  if (pair.harmful.size() != pair.harmless.size()) return std::nullopt;
  std::optional<size_t> difference;
  for (size_t i = 0; i < pair.harmful.size(); ++i) {
    if (pair.harmful[i] == pair.harmless[i]) continue;
    if (difference) return std::nullopt;
    difference = i;
  }
  return difference;
}

// A word is harmful that some harmful prompt has in this place. Levels rise until each
// designated word stands above the others of its class in its prompt.
WordClass MakeClass(const std::vector<Designation>& designations) {
  WordClass result;
  for (const Designation& designation : designations) {
    Word& word = result.words[designation.word];
    word.harmful = word.harmful || designation.of_harmful;
  }
  for (int round = 1; round < kHighestLevel; ++round) {
    for (const Designation& designation : designations) {
      Word& word = result.words[designation.word];
      for (const TokenId id : *designation.ids) {
        const auto other = result.words.find(id);
        if (id == designation.word || other == result.words.end()) continue;
        word.level = std::min(kHighestLevel, std::max(word.level, other->second.level + 1));
      }
    }
  }
  return result;
}

// The request's verb: after the last "to" ("how to kill") or "I" ("How do I kill").
std::optional<size_t> VerbOf(const std::vector<TokenId>& ids, size_t instruction_end,
                             const std::set<TokenId>& before_verbs) {
  for (size_t i = instruction_end; i-- > 0;) {
    if (before_verbs.contains(ids[i]) && i + 1 < instruction_end) return i + 1;
  }
  return std::nullopt;
}

// `where` is for messages.
absl::StatusOr<EncodedPair> Encode(const nlohmann::json& pair, const engine::Tokenizer& tokenizer,
                                   const std::string& where) {
  EncodedPair encoded;
  for (const char* field : {"id", "harmful", "harmless"}) {
    if (!pair.is_object() || !pair.contains(field) || !pair[field].is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": \"", field, "\" must be a text"));
    }
  }
  encoded.id = pair["id"].get<std::string>();
  for (const auto& [field, ids] : {std::pair("harmful", &encoded.harmful), {"harmless", &encoded.harmless}}) {
    ABSTRACT_ASSIGN_OR_RETURN(engine::TemplatedPrompt prompt,
                              engine::ApplyLlama3ChatTemplate(
                                  tokenizer, {{engine::ChatRole::kUser, pair[field].get<std::string>()}}));
    *ids = std::move(prompt.ids);
    encoded.tail_length = prompt.tail_length;
  }
  return encoded;
}

void FindVerbsAndObjects(const engine::Tokenizer& tokenizer, Words& words) {
  std::set<TokenId> before_verbs;
  for (const char* text : {" to", " I"}) {
    const std::vector<TokenId> ids = tokenizer.Encode(text);
    if (ids.size() == 1) before_verbs.insert(ids.front());
  }
  std::vector<Designation> verbs, objects;
  for (const EncodedPair& pair : words.pairs) {
    const std::optional<size_t> difference = OnlyDifference(pair);
    if (!difference) continue;
    const size_t end = pair.harmful.size() - pair.tail_length;
    const std::optional<size_t> verb = VerbOf(pair.harmful, end, before_verbs);
    // The object is the last word before the full stop, unless another one decides.
    const size_t object = verb == difference ? end - 2 : *difference;
    if (!verb || *verb >= object) continue;
    for (const auto* ids : {&pair.harmful, &pair.harmless}) {
      verbs.push_back({ids, (*ids)[*verb], ids == &pair.harmful});
      objects.push_back({ids, (*ids)[object], ids == &pair.harmful});
    }
  }
  words.verbs = MakeClass(verbs);
  words.objects = MakeClass(objects);
}

}  // namespace

double WordClass::HarmOf(const std::vector<TokenId>& ids) const {
  int level = 0, count = 0, harmful = 0;
  for (const TokenId id : ids) {
    const auto found = words.find(id);
    if (found == words.end() || found->second.level < level) continue;
    if (found->second.level > level) level = found->second.level, count = harmful = 0;
    ++count;
    harmful += found->second.harmful ? 1 : 0;
  }
  return count == 0 ? 0 : static_cast<double>(harmful) / count;
}

absl::StatusOr<Words> FindWords(const std::string& prompts_path, const engine::Tokenizer& tokenizer) {
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(prompts_path));
  const auto list = document.is_object() ? document.value("pairs", nlohmann::json()) : nlohmann::json();
  if (!list.is_array() || list.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(prompts_path, ": \"pairs\" must be a list of prompt pairs"));
  }
  Words words;
  for (size_t i = 0; i < list.size(); ++i) {
    ABSTRACT_ASSIGN_OR_RETURN(EncodedPair pair,
                              Encode(list[i], tokenizer, absl::StrCat(prompts_path, ": pairs[", i, "]")));
    words.pairs.push_back(std::move(pair));
  }
  std::vector<Designation> decisive;
  for (const EncodedPair& pair : words.pairs) {
    const std::optional<size_t> difference = OnlyDifference(pair);
    if (!difference) continue;
    decisive.push_back({&pair.harmful, pair.harmful[*difference], true});
    decisive.push_back({&pair.harmless, pair.harmless[*difference], false});
  }
  words.decisive = MakeClass(decisive);
  FindVerbsAndObjects(tokenizer, words);
  return words;
}

std::vector<int> PairsToldByOneWord(const Words& words) {
  std::vector<int> pairs;
  for (int i = 0; i < static_cast<int>(words.pairs.size()); ++i) {
    const EncodedPair& pair = words.pairs[i];
    if (words.decisive.HarmOf(pair.harmful) == 1 && words.decisive.HarmOf(pair.harmless) == 0) {
      pairs.push_back(i);
    }
  }
  return pairs;
}

std::vector<int> PairsToldByVerbAndObject(const Words& words) {
  const auto sum = [&](const std::vector<TokenId>& ids) {
    return words.verbs.HarmOf(ids) + words.objects.HarmOf(ids);
  };
  std::vector<int> pairs;
  for (int i = 0; i < static_cast<int>(words.pairs.size()); ++i) {
    if (sum(words.pairs[i].harmful) == 2 && sum(words.pairs[i].harmless) == 1) pairs.push_back(i);
  }
  return pairs;
}

}  // namespace mechinterp::make_planted
