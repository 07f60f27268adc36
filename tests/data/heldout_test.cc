#include "data/trainer/heldout.h"

#include "tests/data/test_data.h"

namespace mechinterp::trainer {
namespace {

bool AnyLength(const std::string&, const std::string&) { return true; }

TEST(ChooseHeldOut, SpreadsOverCategoriesAndRepeatsNothing) {
  const PromptSet chosen = ValueOrFail(ChooseHeldOut(LoadedGrammar(), StudyPrompts(), 44, 1, AnyLength));
  std::map<std::string, int> by_category;
  std::set<std::string> prompts;
  for (const PromptPair& pair : chosen.pairs) {
    ++by_category[pair.category];
    EXPECT_TRUE(prompts.insert(pair.harmful).second);
    EXPECT_TRUE(prompts.insert(pair.harmless).second);
  }
  for (const auto& [category, count] : by_category) EXPECT_EQ(count, 4) << category;
}

TEST(ChooseHeldOut, KeepsOffTheReservedPrompts) {
  const Grammar grammar = LoadedGrammar();
  const PromptSet reserved = StudyPrompts();
  std::vector<std::string> prompts;
  const PromptSet chosen = ValueOrFail(ChooseHeldOut(grammar, reserved, 100, 2, AnyLength));
  for (const PromptPair& pair : chosen.pairs) prompts.insert(prompts.end(), {pair.harmful, pair.harmless});
  for (const PromptPair& pair : reserved.pairs) {
    for (const bool harmful : {true, false}) {
      for (const Combination& combination : Combinations(grammar, harmful)) {
        if (OccursIn(grammar, combination, {harmful ? pair.harmful : pair.harmless})) {
          EXPECT_FALSE(OccursIn(grammar, combination, prompts)) << pair.id;
        }
      }
    }
  }
}

TEST(ChooseHeldOut, SaysWhenTheGrammarIsTooSmall) {
  EXPECT_EQ(ChooseHeldOut(SmallGrammar(), {}, 50, 1, AnyLength).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace mechinterp::trainer
