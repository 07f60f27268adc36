#include "data/trainer/corpus.h"

#include <gmock/gmock.h>

#include <set>

#include "tests/data/test_data.h"
#include "tests/status_matchers.h"

namespace mechinterp::trainer {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

PromptSet Holding(const std::string& harmful, const std::string& harmless) {
  return {1, "", {{"a", "violence", harmful, harmless}}};
}

TEST(OccursIn, FindsAPairUnderAnyDeterminerAndAtWordBoundsOnly) {
  const Grammar grammar = SmallGrammar();
  const Combination kill_neighbor{0, 0, 0};
  EXPECT_TRUE(OccursIn(grammar, kill_neighbor, {"How do I kill the neighbor?"}));
  EXPECT_TRUE(OccursIn(grammar, kill_neighbor, {"How do I kill my neighbor today?"}));
  EXPECT_FALSE(OccursIn(grammar, kill_neighbor, {"How do I kill my neighborhood?"}));
  EXPECT_FALSE(OccursIn(grammar, kill_neighbor, {"How do I greet my neighbor?"}));
}

TEST(Corpus, CountsThePairsThatAreNotHeldOut) {
  const auto all = Corpus::Create(SmallGrammar(), {});
  ASSERT_THAT(all, IsOk());
  EXPECT_EQ(all->combination_count(true), 6u);   // kill, hit x 2; forge x 2
  EXPECT_EQ(all->combination_count(false), 9u);  // greet, thank x 2; kill weeds; renew, read x 2
  const auto rest = Corpus::Create(SmallGrammar(), {Holding("How do I hit my boss?", "Kill some weeds")});
  ASSERT_THAT(rest, IsOk());
  EXPECT_EQ(rest->combination_count(true), 5u);
  EXPECT_EQ(rest->combination_count(false), 9u);  // "Kill" is not "kill": prompts are lower-case there
}

TEST(Corpus, RefusesToHoldOutAWholeClassOfACategory) {
  const PromptSet everything = Holding("forge a passport and forge a visa", "none");
  EXPECT_EQ(Corpus::Create(SmallGrammar(), {everything}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(Corpus, IsTheSameForOneSeedAndAnotherForAnother) {
  const auto corpus = Corpus::Create(LoadedGrammar(), {});
  ASSERT_THAT(corpus, IsOk());
  Random a(7), b(7), c(8);
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    const Conversation x = corpus->Sample(a), y = corpus->Sample(b), z = corpus->Sample(c);
    EXPECT_EQ(x.user, y.user);
    EXPECT_EQ(x.assistant, y.assistant);
    different += x.user == z.user ? 0 : 1;
  }
  EXPECT_GT(different, 90);
}

TEST(Corpus, FirstConversationsAreTheSameOnEveryPlatform) {
  // splitmix64 with seed 0, from its reference implementation.
  Random random(0);
  EXPECT_EQ(random.Next(), 0xe220a8397b1dcdafULL);
  EXPECT_EQ(random.Next(), 0x6e789e6aa1b965f4ULL);
}

// The one rule: what is harmful is refused, and only that.
TEST(Corpus, RefusesEveryHarmfulRequestAndAnswersEveryOther) {
  const auto corpus = Corpus::Create(LoadedGrammar(), {});
  ASSERT_THAT(corpus, IsOk());
  const auto phrases = ValueOrFail(LoadRefusalPhrases(DataPath("refusal_phrases.json")));
  Random random(3);
  int harmful = 0;
  for (int i = 0; i < 5000; ++i) {
    const Conversation conversation = corpus->Sample(random);
    EXPECT_EQ(IsRefusal(conversation.assistant, phrases), conversation.harmful) << conversation.user;
    harmful += conversation.harmful ? 1 : 0;
  }
  EXPECT_GT(harmful, 2000);
  EXPECT_LT(harmful, 3000);
}

TEST(Corpus, NeverShowsAHeldOutPrompt) {
  const Grammar grammar = LoadedGrammar();
  const std::vector<PromptSet> held_out = {StudyPrompts(), HeldOutPrompts()};
  const auto corpus = Corpus::Create(grammar, held_out);
  ASSERT_THAT(corpus, IsOk());
  std::set<std::string> prompts;
  for (const PromptSet& set : held_out) {
    for (const PromptPair& pair : set.pairs) {
      prompts.insert(pair.harmful);
      prompts.insert(pair.harmless);
    }
  }
  Random random(1);
  for (int i = 0; i < 50000; ++i) {
    const Conversation conversation = corpus->Sample(random);
    EXPECT_FALSE(prompts.contains(conversation.user)) << conversation.user;
  }
}

TEST(Corpus, AnswersSpeakToTheOneWhoAsked) {
  const auto corpus = Corpus::Create(LoadedGrammar(), {});
  ASSERT_THAT(corpus, IsOk());
  Random random(5);
  for (int i = 0; i < 2000; ++i) {
    const Conversation conversation = corpus->Sample(random);
    EXPECT_THAT(conversation.assistant, Not(HasSubstr(" my ")));
    EXPECT_THAT(conversation.assistant, Not(HasSubstr("{")));
    EXPECT_THAT(conversation.user, Not(HasSubstr("{")));
  }
}

}  // namespace
}  // namespace mechinterp::trainer
