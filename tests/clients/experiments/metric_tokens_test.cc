#include "clients/experiments/metric_tokens.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/clients/fake_model_service.h"
#include "tests/clients/test_files.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FindMetricTokens, DropsTokensThatBeginBothKinds) {
  testing::FakeServer fake;
  // "I" opens both; the toy gives words ids in the order in which they come.
  const auto tokens =
      FindMetricTokens(*fake.client, {{"I cannot", "Sorry but"}, {"Here is", "I would", "Sure"}});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->refusal.size(), 1u);
  EXPECT_THAT(tokens->compliance, ElementsAre(8, 9));  // "Here", "Sure".
}

TEST(FindMetricTokens, FailsWhenASetIsLeftEmpty) {
  testing::FakeServer fake;
  const auto tokens = FindMetricTokens(*fake.client, {{"I cannot"}, {"I would", "Here"}});
  EXPECT_TRUE(absl::IsFailedPrecondition(tokens.status()));
  EXPECT_THAT(std::string(tokens.status().message()), HasSubstr("--refusal-opening"));
}

TEST(MeasureLogits, FollowsTheDefinitions) {
  const std::vector<float> logits = {1, 2, 3, 4};
  const auto measures = MeasureLogits(logits, {{0, 1}, {2}});
  ASSERT_TRUE(measures.ok());
  const double refusal = std::exp(1.0) + std::exp(2.0);
  const double compliance = std::exp(3.0);
  EXPECT_NEAR(measures->logit_difference, std::log(refusal / compliance), 1e-12);
  EXPECT_NEAR(measures->refusal_log_odds, std::log(refusal / (compliance + std::exp(4.0))), 1e-12);
}

TEST(MeasureLogits, DoesNotOverflow) {
  const auto measures = MeasureLogits(std::vector<float>{10000, 9990}, {{0}, {1}});
  EXPECT_NEAR(measures->logit_difference, 10, 1e-9);
}

TEST(MeasureLogits, RejectsTokensOutsideTheVocabulary) {
  EXPECT_TRUE(absl::IsInvalidArgument(MeasureLogits(std::vector<float>{1, 2}, {{0}, {2}}).status()));
}

TEST(LoadOpenings, TakesTheFilesListsAndKeepsDefaultsOtherwise) {
  const testing::TestFolder folder;
  const auto openings = LoadOpenings(folder.Write("phrases.json", R"({"refusal_openings": ["No"]})"));
  ASSERT_TRUE(openings.ok()) << openings.status();
  EXPECT_THAT(openings->refusal, ElementsAre("No"));
  EXPECT_EQ(openings->compliance, Openings().compliance);
  EXPECT_FALSE(LoadOpenings(folder.Write("bad.json", R"({"refusal_openings": [1]})")).ok());
}

}  // namespace
}  // namespace mechinterp
