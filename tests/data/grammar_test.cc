#include "data/trainer/grammar.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/data/test_data.h"
#include "tests/status_matchers.h"

namespace mechinterp::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseObject, SplitsDeterminersFromTheNoun) {
  const Object object = ValueOrFail(ParseObject("my|the police officer"));
  EXPECT_THAT(object.determiners, ElementsAre("my", "the"));
  EXPECT_EQ(object.noun, "police officer");
}

TEST(ParseObject, ADashIsNoDeterminer) {
  const Object object = ValueOrFail(ParseObject("-|some rice"));
  EXPECT_THAT(object.determiners, ElementsAre("", "some"));
  EXPECT_EQ(RequestPhrase("cook", object.determiners[0], object.noun), "cook rice");
}

TEST(ParseObject, RejectsANounWithoutDeterminers) { EXPECT_FALSE(ParseObject("rice").ok()); }

TEST(ValidateGrammar, AcceptsTheSmallGrammar) { EXPECT_THAT(ValidateGrammar(SmallGrammar()), IsOk()); }

TEST(ValidateGrammar, RejectsAPairThatIsInBothClasses) {
  Grammar grammar = SmallGrammar();
  grammar.relations[1].verbs.push_back("hit");
  EXPECT_THAT(ValidateGrammar(grammar).ToString(), HasSubstr("'hit neighbor' is both harmful and harmless"));
}

TEST(ValidateGrammar, RejectsAnAnswerToWhatIsHarmful) {
  Grammar grammar = SmallGrammar();
  grammar.relations[0].steps = "any";
  EXPECT_THAT(ValidateGrammar(grammar).ToString(), HasSubstr("must not have steps"));
}

TEST(ValidateGrammar, RejectsUnknownStepsAndWordings) {
  Grammar grammar = SmallGrammar();
  grammar.relations[1].steps = "none";
  EXPECT_THAT(ValidateGrammar(grammar).ToString(), HasSubstr("unknown steps 'none'"));
  grammar = SmallGrammar();
  grammar.templates[0].answer = "none";
  EXPECT_THAT(ValidateGrammar(grammar).ToString(), HasSubstr("unknown answer"));
}

TEST(LoadGrammar, NamesTheFileThatIsMissing) {
  const auto grammar = LoadGrammar("/nowhere/grammar.json");
  EXPECT_EQ(grammar.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(grammar.status().ToString(), HasSubstr("/nowhere/grammar.json"));
}

TEST(TheGrammar, HasManyCategoriesTemplatesAndPairs) {
  const Grammar grammar = LoadedGrammar();
  EXPECT_GE(grammar.categories.size(), 6u);
  EXPECT_GE(grammar.templates.size(), 12u);
  EXPECT_GE(Combinations(grammar, true).size(), 1000u);
  EXPECT_GE(Combinations(grammar, false).size(), 1000u);
}

// Harmfulness must not be readable off one word, or there would be nothing for
// attention to do.
TEST(TheGrammar, MostWordsOccurInBothClasses) {
  const Grammar grammar = LoadedGrammar();
  std::set<std::string> verbs[2], nouns[2];
  for (const Relation& relation : grammar.relations) {
    verbs[relation.harmful].insert(relation.verbs.begin(), relation.verbs.end());
    for (const Object& object : relation.objects) nouns[relation.harmful].insert(object.noun);
  }
  int harmful_only_verbs = 0;
  for (const std::string& verb : verbs[1]) harmful_only_verbs += verbs[0].contains(verb) ? 0 : 1;
  EXPECT_LE(harmful_only_verbs * 4, static_cast<int>(verbs[1].size()));
  for (const std::string& noun : nouns[1]) EXPECT_TRUE(nouns[0].contains(noun)) << noun;
}

TEST(TheGrammar, RefusalsAreJudgedAsRefusalsAndAnswersAreNot) {
  const Grammar grammar = LoadedGrammar();
  const auto phrases = ValueOrFail(LoadRefusalPhrases(DataPath("refusal_phrases.json")));
  for (const auto& [name, text] : grammar.refusals) EXPECT_TRUE(IsRefusal(text, phrases)) << name;
  for (const auto& [name, text] : grammar.answers) EXPECT_FALSE(IsRefusal(text, phrases)) << name;
  for (const ChatExample& chat : grammar.chat) EXPECT_FALSE(IsRefusal(chat.assistant, phrases)) << chat.user;
  for (const auto& [name, slots] : grammar.steps) {
    for (const auto& slot : slots) {
      for (const std::string& step : slot) EXPECT_FALSE(IsRefusal(step, phrases)) << step;
    }
  }
}

}  // namespace
}  // namespace mechinterp::trainer
