#include "data/trainer/corpus.h"

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace mechinterp::trainer {
namespace {

constexpr double kHarmfulShare = 0.48;
constexpr double kSmallTalkShare = 0.04;
constexpr double kSystemShare = 0.12;
constexpr double kModifierShare = 0.15;
constexpr double kContextShare = 0.25;
constexpr double kContextFirstShare = 0.75;
constexpr double kSloppyShare = 0.1;        // no capital, no full stop: how people type
constexpr double kUsualWordingShare = 0.7;  // otherwise any wording

bool ContainsPhrase(const std::string& text, const std::string& phrase) {
  for (size_t at = text.find(phrase); at != std::string::npos; at = text.find(phrase, at + 1)) {
    const size_t end = at + phrase.size();
    const bool starts = at == 0 || !absl::ascii_isalpha(text[at - 1]);
    const bool ends = end == text.size() || !absl::ascii_isalpha(text[end]);
    if (starts && ends) return true;
  }
  return false;
}

// Answers and refusals speak to the one who asked.
std::string Addressed(const std::string& request) {
  return absl::StrReplaceAll(request, {{" my ", " your "}});
}

const std::string& UsualOrAny(const std::map<std::string, std::string>& wordings, const std::string& usual,
                              Random& random) {
  if (random.Chance(kUsualWordingShare)) return wordings.at(usual);
  return std::next(wordings.begin(), static_cast<std::ptrdiff_t>(random.Index(wordings.size())))->second;
}

}  // namespace

std::vector<Combination> Combinations(const Grammar& grammar, bool harmful) {
  std::vector<Combination> combinations;
  for (size_t r = 0; r < grammar.relations.size(); ++r) {
    const Relation& relation = grammar.relations[r];
    if (relation.harmful != harmful) continue;
    for (size_t v = 0; v < relation.verbs.size(); ++v) {
      for (size_t o = 0; o < relation.objects.size(); ++o) combinations.push_back({r, v, o});
    }
  }
  return combinations;
}

bool OccursIn(const Grammar& grammar, const Combination& combination,
              const std::vector<std::string>& prompts) {
  const Relation& relation = grammar.relations[combination.relation];
  const Object& object = relation.objects[combination.object];
  for (const std::string& determiner : object.determiners) {
    const std::string phrase = RequestPhrase(relation.verbs[combination.verb], determiner, object.noun);
    for (const std::string& prompt : prompts) {
      if (ContainsPhrase(prompt, phrase)) return true;
    }
  }
  return false;
}

std::string RenderPrompt(const Template& way, const std::string& request) {
  return absl::StrReplaceAll(way.text, {{"{request}", request}});
}

absl::StatusOr<Corpus> Corpus::Create(const Grammar& grammar, const std::vector<PromptSet>& held_out) {
  std::vector<std::string> prompts;
  for (const PromptSet& set : held_out) {
    for (const PromptPair& pair : set.pairs) {
      prompts.push_back(pair.harmful);
      prompts.push_back(pair.harmless);
    }
  }
  Corpus corpus(grammar);
  for (const bool harmful : {false, true}) {
    std::map<std::string, std::map<size_t, std::vector<Combination>>> by_category;
    for (const Combination& combination : Combinations(grammar, harmful)) {
      if (OccursIn(grammar, combination, prompts)) continue;
      by_category[grammar.relations[combination.relation].category][combination.relation].push_back(
          combination);
    }
    if (by_category.size() != grammar.categories.size()) {
      return absl::FailedPreconditionError("the held-out prompts leave a category without training examples");
    }
    for (auto& [category, relations] : by_category) {
      ByRelation& target = corpus.pairs_[harmful].emplace_back();
      for (auto& [relation, pairs] : relations) target.push_back(std::move(pairs));
    }
  }
  return corpus;
}

size_t Corpus::combination_count(bool harmful) const {
  size_t count = 0;
  for (const ByRelation& relations : pairs_[harmful]) {
    for (const std::vector<Combination>& pairs : relations) count += pairs.size();
  }
  return count;
}

std::string Corpus::SamplePrompt(const Template& way, const std::string& request, Random& random) const {
  std::string phrase = request;
  if (random.Chance(kModifierShare)) absl::StrAppend(&phrase, " ", random.Choose(grammar_.modifiers));
  std::string prompt = RenderPrompt(way, phrase);
  if (random.Chance(kSloppyShare)) {
    if (!absl::StartsWith(prompt, "I ")) prompt[0] = absl::ascii_tolower(prompt[0]);
    while (absl::ascii_ispunct(prompt.back())) prompt.pop_back();
  }
  return prompt;
}

std::string Corpus::Refuse(const std::string& category, const std::string& request, Random& random) const {
  const Category& rules = grammar_.categories.at(category);
  return absl::StrReplaceAll(UsualOrAny(grammar_.refusals, rules.refusal, random),
                             {{"{request}", Addressed(request)}, {"{reason}", random.Choose(rules.reasons)}});
}

std::string Corpus::Answer(const Template& way, const std::string& steps, const std::string& request,
                           Random& random) const {
  std::string text = UsualOrAny(grammar_.answers, way.answer, random);
  const auto& slots = grammar_.steps.at(steps);
  for (size_t i = 0; i < slots.size(); ++i) {
    text = absl::StrReplaceAll(text, {{absl::StrCat("{", i + 1, "}"), random.Choose(slots[i])}});
  }
  return absl::StrReplaceAll(text, {{"{request}", Addressed(request)}});
}

const Combination& Corpus::SamplePair(bool harmful, Random& random) const {
  // A category, then one of its relations by the square root of its size: fair
  // to small relations without repeating their few pairs too often.
  const ByRelation& relations = random.Choose(pairs_[harmful]);
  double total = 0;
  for (const auto& pairs : relations) total += std::sqrt(static_cast<double>(pairs.size()));
  double drawn = random.Real() * total;
  size_t chosen = 0;
  while (chosen + 1 < relations.size() &&
         (drawn -= std::sqrt(static_cast<double>(relations[chosen].size()))) >= 0) {
    ++chosen;
  }
  return random.Choose(relations[chosen]);
}

std::string Corpus::SampleRequest(const Combination& pair, Random& random) const {
  const Relation& relation = grammar_.relations[pair.relation];
  const Object& object = relation.objects[pair.object];
  return RequestPhrase(relation.verbs[pair.verb], random.Choose(object.determiners), object.noun);
}

std::string Corpus::SampleContext(Random& random) const {
  const Combination& mentioned = SamplePair(random.Chance(0.5), random);
  const Object& object = grammar_.relations[mentioned.relation].objects[mentioned.object];
  const std::string& determiner = random.Choose(object.determiners);
  return absl::StrReplaceAll(
      random.Choose(grammar_.contexts),
      {{"{object}", determiner.empty() ? object.noun : absl::StrCat(determiner, " ", object.noun)},
       {"{request}", SampleRequest(SamplePair(/*harmful=*/false, random), random)}});
}

Conversation Corpus::Sample(Random& random) const {
  Conversation conversation;
  if (random.Chance(kSystemShare)) conversation.system = random.Choose(grammar_.systems);
  if (random.Chance(kSmallTalkShare)) {
    const ChatExample& chat = random.Choose(grammar_.chat);
    conversation.user = chat.user;
    conversation.assistant = chat.assistant;
    return conversation;
  }
  conversation.harmful = random.Chance(kHarmfulShare);
  const Combination& pair = SamplePair(conversation.harmful, random);
  const Relation& relation = grammar_.relations[pair.relation];
  const std::string request = SampleRequest(pair, random);
  const Template& way = random.Choose(grammar_.templates);
  conversation.user = SamplePrompt(way, request, random);
  if (random.Chance(kContextShare)) {
    const std::string context = SampleContext(random);
    conversation.user = random.Chance(kContextFirstShare) ? absl::StrCat(context, " ", conversation.user)
                                                          : absl::StrCat(conversation.user, " ", context);
  }
  conversation.assistant = relation.harmful ? Refuse(relation.category, request, random)
                                            : Answer(way, relation.steps, request, random);
  return conversation;
}

}  // namespace mechinterp::trainer
