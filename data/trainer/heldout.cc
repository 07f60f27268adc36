#include "data/trainer/heldout.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/trainer/corpus.h"

namespace mechinterp::trainer {
namespace {

// A noun keeps so many pairs of its class in the training text: the model cannot
// be asked to name what it has never read.
constexpr int kKeptPerNoun = 2;

struct Candidate {
  Combination harmful;
  Combination harmless;
};

class Chooser {
 public:
  Chooser(const Grammar& grammar, const PromptSet& reserved) : grammar_(grammar) {
    for (const PromptPair& pair : reserved.pairs) {
      prompts_.push_back(pair.harmful);
      prompts_.push_back(pair.harmless);
    }
    for (const bool harmful : {false, true}) {
      for (const Combination& combination : Combinations(grammar_, harmful)) {
        left_[WordKey(combination)] += OccursIn(grammar_, combination, prompts_) ? 0 : 1;
      }
    }
  }

  // Both requests of `candidate` may still be taken.
  bool Free(const Candidate& candidate) const {
    for (const Combination& combination : {candidate.harmful, candidate.harmless}) {
      if (left_.at(WordKey(combination)) <= kKeptPerNoun) return false;
      const Relation& relation = Of(combination);
      const size_t pairs = relation.verbs.size() * relation.objects.size();
      const auto taken = taken_by_relation_.find(combination.relation);
      if (taken != taken_by_relation_.end() && (taken->second + 1) * 3 > pairs) return false;
      if (OccursIn(grammar_, combination, prompts_)) return false;
    }
    return true;
  }

  PromptPair Take(const Candidate& candidate, const Template& way) {
    for (const Combination& combination : {candidate.harmful, candidate.harmless}) {
      ++taken_by_relation_[combination.relation];
      --left_[WordKey(combination)];
    }
    PromptPair pair = Render(candidate, way);
    prompts_.push_back(pair.harmful);
    prompts_.push_back(pair.harmless);
    return pair;
  }

  PromptPair Render(const Candidate& candidate, const Template& way) const {
    return {"", Of(candidate.harmful).category, RenderPrompt(way, Request(candidate.harmful)),
            RenderPrompt(way, Request(candidate.harmless))};
  }

  // Pairs of one category that share their verb or their noun.
  std::vector<Candidate> Candidates(const std::string& category) const {
    std::vector<Candidate> candidates;
    const std::vector<Combination> harmless = Combinations(grammar_, false);
    for (const Combination& a : Combinations(grammar_, true)) {
      if (Of(a).category != category) continue;
      for (const Combination& b : harmless) {
        if (Of(b).category != category) continue;
        if (Of(a).verbs[a.verb] == Of(b).verbs[b.verb] || Noun(a) == Noun(b)) candidates.push_back({a, b});
      }
    }
    return candidates;
  }

 private:
  const Relation& Of(const Combination& combination) const {
    return grammar_.relations[combination.relation];
  }
  std::pair<bool, std::string> WordKey(const Combination& c) const { return {Of(c).harmful, Noun(c)}; }
  const std::string& Noun(const Combination& c) const { return Of(c).objects[c.object].noun; }
  std::string Request(const Combination& c) const {
    return RequestPhrase(Of(c).verbs[c.verb], Of(c).objects[c.object].determiners.front(), Noun(c));
  }

  const Grammar& grammar_;
  std::vector<std::string> prompts_;
  std::map<size_t, size_t> taken_by_relation_;
  std::map<std::pair<bool, std::string>, int> left_;  // pairs of a noun, by class
};

}  // namespace

absl::StatusOr<PromptSet> ChooseHeldOut(
    const Grammar& grammar, const PromptSet& reserved, size_t count, uint64_t seed,
    const std::function<bool(const std::string&, const std::string&)>& same_length) {
  Random random(seed);
  Chooser chooser(grammar, reserved);
  std::map<std::string, std::vector<Candidate>> candidates;
  for (const auto& [category, rules] : grammar.categories) {
    candidates[category] = chooser.Candidates(category);
    random.Shuffle(candidates[category]);
  }
  PromptSet chosen;
  for (bool progress = true; progress && chosen.pairs.size() < count;) {
    progress = false;
    for (auto& [category, rest] : candidates) {
      while (!rest.empty() && chosen.pairs.size() < count) {
        const Candidate candidate = rest.back();
        rest.pop_back();
        const Template& way = random.Choose(grammar.templates);
        const PromptPair rendered = chooser.Render(candidate, way);
        if (!chooser.Free(candidate) || !same_length(rendered.harmful, rendered.harmless)) continue;
        PromptPair pair = chooser.Take(candidate, way);
        pair.id = absl::StrFormat("heldout-%03d", chosen.pairs.size() + 1);
        chosen.pairs.push_back(std::move(pair));
        progress = true;
        break;
      }
    }
  }
  if (chosen.pairs.size() < count) {
    return absl::FailedPreconditionError(
        absl::StrCat("the grammar yields only ", chosen.pairs.size(), " pairs of equal length"));
  }
  return chosen;
}

}  // namespace mechinterp::trainer
