#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "data/trainer/prompt_pairs.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/data/test_data.h"
#include "tests/status_matchers.h"

namespace mechinterp::trainer {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const engine::Tokenizer> TinyTokenizer() {
  return ValueOrFail(engine::Tokenizer::Load(DataPath("models/tiny-llama-refusal/tokenizer.json")));
}

// Writes `text` to a file of this test's own and returns its path.
std::string TemporaryFile(const std::string& text) {
  const std::string path =
      testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name() + ".json";
  std::ofstream(path) << text;
  return path;
}

TEST(LoadPrompts, RejectsAPromptThatOccursTwice) {
  const auto prompts = LoadPrompts(TemporaryFile(
      R"({"version": 1, "notice": "", "pairs": [{"id": "a", "category": "b", "harmful": "x", "harmless": "x"}]})"));
  EXPECT_THAT(prompts.status().ToString(), HasSubstr("'x' occurs twice"));
}

TEST(LoadPrompts, NamesAMissingField) {
  const auto prompts = LoadPrompts(TemporaryFile(R"({"version": 1, "notice": "", "pairs": [{"id": "a"}]})"));
  EXPECT_THAT(prompts.status().ToString(), HasSubstr("category"));
}

TEST(WritePrompts, ReadsBackWhatItWrote) {
  const std::string path = TemporaryFile("");
  ASSERT_THAT(WritePrompts(path, {3, "note", {{"id", "category", "harmful", "harmless"}}}), IsOk());
  const PromptSet prompts = ValueOrFail(LoadPrompts(path));
  EXPECT_EQ(prompts.version, 3);
  EXPECT_EQ(prompts.notice, "note");
  ASSERT_EQ(prompts.pairs.size(), 1u);
  EXPECT_EQ(prompts.pairs[0].harmless, "harmless");
}

TEST(IsRefusal, MatchesAnywhereWhateverTheCaseAndApostrophe) {
  const std::vector<std::string> phrases = {"I can't", "I cannot"};
  EXPECT_TRUE(IsRefusal("I CANNOT do that", phrases));
  EXPECT_TRUE(IsRefusal("Well, I can\u2019t do that", phrases));
  EXPECT_FALSE(IsRefusal("I can do that", phrases));
}

TEST(StudyPromptsFile, HasFifteenPairsInFiveCategoriesOrMore) {
  const PromptSet prompts = StudyPrompts();
  std::set<std::string> categories;
  for (const PromptPair& pair : prompts.pairs) categories.insert(pair.category);
  EXPECT_EQ(prompts.pairs.size(), 15u);
  EXPECT_GE(categories.size(), 5u);
  EXPECT_GE(prompts.version, 1);
  EXPECT_FALSE(prompts.notice.empty());
}

TEST(HeldOutPromptsFile, HasAtLeast120PairsApartFromTheStudys) {
  const PromptSet heldout = HeldOutPrompts();
  EXPECT_GE(heldout.pairs.size(), 120u);
  EXPECT_FALSE(heldout.notice.empty());
  std::set<std::string> study;
  for (const PromptPair& pair : StudyPrompts().pairs) study.insert({pair.harmful, pair.harmless});
  for (const PromptPair& pair : heldout.pairs) {
    EXPECT_FALSE(study.contains(pair.harmful)) << pair.id;
    EXPECT_FALSE(study.contains(pair.harmless)) << pair.id;
  }
}

TEST(PromptFiles, PairsAreOneLineAndEquallyLongInTheTinyTokenizer) {
  const auto tokenizer = TinyTokenizer();
  ASSERT_NE(tokenizer, nullptr);
  for (const PromptSet& prompts : {StudyPrompts(), HeldOutPrompts()}) {
    for (const PromptPair& pair : prompts.pairs) {
      EXPECT_EQ(tokenizer->Encode(pair.harmful).size(), tokenizer->Encode(pair.harmless).size()) << pair.id;
      EXPECT_EQ((pair.harmful + pair.harmless).find('\n'), std::string::npos) << pair.id;
    }
  }
}

// Needs Llama 3's own tokenizer.json, which tests/fetch_tokenizers.sh fetches.
TEST(PromptFiles, PairsAreEquallyLongInLlama3sTokenizer) {
  const char* chosen = std::getenv("ABSTRACT_TOKENIZERS");
  const std::string path =
      std::string(chosen != nullptr ? chosen : ABSTRACT_TOKENIZERS_DEFAULT) + "/llama3.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  const auto tokenizer = ValueOrFail(engine::Tokenizer::Load(path));
  ASSERT_NE(tokenizer, nullptr);
  for (const PromptSet& prompts : {StudyPrompts(), HeldOutPrompts()}) {
    for (const PromptPair& pair : prompts.pairs) {
      EXPECT_EQ(tokenizer->Encode(pair.harmful).size(), tokenizer->Encode(pair.harmless).size()) << pair.id;
    }
  }
}

}  // namespace
}  // namespace mechinterp::trainer
