#include "clients/experiments/metric_tokens.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/clients/fake_model_service.h"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FindMetricTokens, DropsTokensThatBeginBothKinds) {
  testing::FakeServer fake;
  // "I" opens both; the toy gives words ids in the order in which they come.
  const auto tokens =
      FindMetricTokens(*fake.client, {{"I cannot", "Sorry but"}, {"Here is", "I would", "Sure"}});
  ASSERT_THAT(tokens, IsOk());
  EXPECT_EQ(tokens->refusal.size(), 1u);
  EXPECT_THAT(tokens->compliance, ElementsAre(8, 9));  // "Here", "Sure".
}

TEST(FindMetricTokens, FailsWhenASetIsLeftEmpty) {
  testing::FakeServer fake;
  const auto tokens = FindMetricTokens(*fake.client, {{"I cannot"}, {"I would", "Here"}});
  EXPECT_TRUE(absl::IsFailedPrecondition(tokens.status()));
  EXPECT_THAT(std::string(tokens.status().message()), HasSubstr("--refusal-opening"));
}

TEST(LoadOpenings, TakesTheFilesListsAndKeepsDefaultsOtherwise) {
  const testing::TestFolder folder;
  const auto openings = LoadOpenings(folder.Write("phrases.json", R"({"refusal_openings": ["No"]})"));
  ASSERT_THAT(openings, IsOk());
  EXPECT_THAT(openings->refusal, ElementsAre("No"));
  EXPECT_EQ(openings->compliance, Openings().compliance);
  for (const auto& [content, problem] :
       {std::pair(R"({"refusal_openings": ["No", 1]})", "refusal_openings[1]"),
        std::pair(R"({"compliance_openings": "Yes"})", "compliance_openings"),
        std::pair("[]", "not a JSON object")}) {
    const auto bad = LoadOpenings(folder.Write("bad.json", content));
    EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument) << content;
    EXPECT_THAT(std::string(bad.status().message()), ::testing::HasSubstr(problem));
    EXPECT_THAT(std::string(bad.status().message()), ::testing::HasSubstr("bad.json"));
  }
}

}  // namespace
}  // namespace mechinterp
