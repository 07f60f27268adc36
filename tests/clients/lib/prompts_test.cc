#include "clients/lib/prompts.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(const std::string& content) {
  const testing::TestFolder folder;
  return std::string(LoadPromptPairs(folder.Write("prompts.json", content)).status().message());
}

TEST(LoadPromptPairs, ReadsTheFirstPairs) {
  const testing::TestFolder folder;
  const std::string path = folder.Write("prompts.json", R"({"version": 1, "notice": "", "pairs": [
      {"id": "a", "category": "x", "harmful": "h1", "harmless": "n1"},
      {"id": "b", "category": "y", "harmful": "h2", "harmless": "n2"}]})");
  const auto all = LoadPromptPairs(path);
  ASSERT_THAT(all, IsOk());
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ((*all)[1].prompt(v1::PROMPT_CLASS_HARMFUL), "h2");
  EXPECT_EQ((*all)[1].prompt(v1::PROMPT_CLASS_HARMLESS), "n2");
  EXPECT_EQ(LoadPromptPairs(path, 1)->size(), 1u);
  EXPECT_EQ(LoadPromptPairs(path, 5)->size(), 2u);
}

TEST(LoadPromptPairs, ReadsThoseOfTheRepository) {
  for (const char* name : {"/data/prompts.json", "/data/heldout_prompts.json"}) {
    const auto pairs = LoadPromptPairs(std::string(ABSTRACT_SOURCE_DIR) + name);
    EXPECT_THAT(pairs, IsOk());
  }
}

TEST(LoadPromptPairs, TellsWhereTheJsonIsBroken) {
  EXPECT_THAT(ErrorOf("{\n  \"pairs\": [,]\n}"),
              HasSubstr("prompts.json: not valid JSON at line 2, column 13"));
}

TEST(LoadPromptPairs, ListsEveryPairAtFault) {
  const std::string error = ErrorOf(R"({"pairs": [
      {"id": "a", "category": "x", "harmful": "h", "harmless": " "},
      {"id": "a", "category": 3, "harmful": "h", "harmless": "n"}, 7]})");
  EXPECT_THAT(error, HasSubstr("pairs[0].harmless: must be a text that is not empty"));
  EXPECT_THAT(error, HasSubstr("pairs[1].category: must be"));
  EXPECT_THAT(error, HasSubstr("pairs[1].id: \"a\" occurs twice"));
  EXPECT_THAT(error, HasSubstr("pairs[2]: must be an object"));
}

TEST(LoadPromptPairs, RejectsDeepAndHugeOnesInAFewWords) {
  const std::string deep(200'000, '[');
  EXPECT_THAT(ErrorOf(deep), HasSubstr("nested deeper than"));
  EXPECT_THAT(ErrorOf("{\"pairs\": " + deep + std::string(deep.size(), ']') + "}"),
              HasSubstr("nested deeper than"));
  const std::string huge(1 << 20, 'x');
  for (const std::string& content :
       {"{\"version\": \"" + huge + "\", \"pairs\": [{}]}",
        "{\"pairs\": [{\"id\": \"" + huge + "\"}, {\"id\": \"" + huge + "\"}]}"}) {
    const std::string error = ErrorOf(content);
    EXPECT_THAT(error, HasSubstr("prompts.json"));
    EXPECT_LT(error.size(), 2000u);
  }
}

TEST(LoadPromptPairs, RejectsFilesOfAnotherKind) {
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("\"pairs\" must be a list"));
  EXPECT_THAT(ErrorOf(R"({"version": 2, "pairs": [{}]})"), HasSubstr("version 2"));
  EXPECT_TRUE(absl::IsNotFound(LoadPromptPairs("/nowhere/prompts.json").status()));
}

TEST(UserPrompt, PutsTheSystemMessageFirst) {
  const v1::Prompt prompt = UserPrompt("hi", "be kind");
  ASSERT_EQ(prompt.chat().messages_size(), 2);
  EXPECT_EQ(prompt.chat().messages(0).role(), v1::CHAT_ROLE_SYSTEM);
  EXPECT_EQ(prompt.chat().messages(1).content(), "hi");
}

TEST(DigestOf, DiffersWhenTextMovesBetweenFields) {
  EXPECT_NE(DigestOf({{"a", "b", "cd", "e"}}), DigestOf({{"a", "b", "c", "de"}}));
}

}  // namespace
}  // namespace mechinterp
