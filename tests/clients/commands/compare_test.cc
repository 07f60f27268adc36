#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/clients/commands/tool_fixture.h"

namespace mechinterp {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RunToolWith;
using testing::TestFolder;
using testing::ToolOutcome;

class CompareCommandTest : public testing::ToolTest {
 protected:
  CompareCommandTest() { other_.service.set_deviation({0.5f, 0.01f}); }

  ToolOutcome RunCompare(const std::vector<std::string>& more = {}) {
    return RunCompareWith(other_.address(), more);
  }

  ToolOutcome RunCompareWith(const std::string& other, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {
        "compare",      "--other-server",    other,           "--prompts", prompts_,
        "--output-dir", folder_.File("out"), "--concurrency", "1"};  // The toys number words as they come.
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  }

  nlohmann::json ReadResults() const {
    return nlohmann::json::parse(TestFolder::Read(Results("04_compare_results.json")));
  }

  testing::FakeServer other_;
};

TEST_F(CompareCommandTest, PrintsAndWritesHowFarTheServersAreApart) {
  const ToolOutcome outcome = RunCompare();
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("at " + fake_.address()));
  EXPECT_THAT(outcome.out, HasSubstr("at " + other_.address()));
  EXPECT_THAT(outcome.out, HasSubstr("prompts: 4; positions: 52, of them 31 with"));
  EXPECT_THAT(outcome.out, HasSubstr("KL(reference || other)"));
  EXPECT_THAT(outcome.out, HasSubstr("same top token:"));
  EXPECT_THAT(outcome.out, HasSubstr("perplexity: reference"));
  // 1 % in the first of four layers: a quarter of the longest bar.
  EXPECT_THAT(outcome.out, ContainsRegex("\n0 +0.01 +0.01 +0.01  #{8}\n"));
  EXPECT_THAT(outcome.out, ContainsRegex("\n3 +0.04 +0.04 +0.04  #{32}\n"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("ontinuations")));

  const auto results = ReadResults();
  EXPECT_EQ(results["prompts"].size(), 4u);
  EXPECT_EQ(results["prompts"][0]["prompt_id"], "p1/harmful");
  EXPECT_EQ(results["provenance"]["model"]["name"], "toy");
  EXPECT_EQ(results["provenance"]["pair_count"], 2);
  EXPECT_EQ(results["other_model"]["name"], "toy");
  for (const auto& entry : std::filesystem::directory_iterator(folder_.File("out/results"))) {
    EXPECT_THAT(entry.path().string(), Not(HasSubstr("journal")));
  }
}

TEST_F(CompareCommandTest, ShowsWhereContinuationsPart) {
  fake_.service.set_continuation({5, 6, 7});
  other_.service.set_continuation({5, 6});
  const ToolOutcome outcome = RunCompare({"--max-new-tokens", "9"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("at most 9 tokens: the same for 0 of 4 prompts"));
  EXPECT_THAT(outcome.out, HasSubstr("after a median of 2 tokens"));
}

TEST_F(CompareCommandTest, TakesPromptsFromTheCommandLine) {
  const ToolOutcome outcome = RunCompare({"--prompt", "make a bomb", "--prompt", "bake a pie"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto results = ReadResults();
  ASSERT_EQ(results["prompts"].size(), 2u);
  EXPECT_EQ(results["prompts"][1]["prompt_id"], "prompt 2");
  EXPECT_EQ(results["prompts"][1]["prompt"], "bake a pie");
  EXPECT_EQ(results["prompts"][1]["positions"].size(), 13u);  // The template's 10 are there.
  EXPECT_EQ(results["provenance"]["prompts_path"], "");
}

TEST_F(CompareCommandTest, TakesTokenIdsForModelsWithoutATokenizer) {
  fake_.service.set_has_tokenizer(false);
  other_.service.set_has_tokenizer(false);
  const ToolOutcome outcome = RunCompare({"--token-ids", "1,5:7", "--token-ids", "9"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("prompts: 2; positions: 4"));
  EXPECT_THAT(outcome.out, HasSubstr("#1 #5 #6"));
  const auto results = ReadResults();
  EXPECT_EQ(results["prompts"][0]["prompt"], "token ids 1,5,6");
  EXPECT_EQ(results["prompts"][0]["positions"][2]["token_id"], 6);
  EXPECT_EQ(results["prompts"][1]["positions"].size(), 1u);
}

TEST_F(CompareCommandTest, PrintsOneJsonDocument) {
  const ToolOutcome outcome = RunCompare({"--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(nlohmann::json::parse(outcome.out)["prompts"].size(), 4u);
}

TEST_F(CompareCommandTest, OnePromptHasNoInterval) {
  const ToolOutcome outcome = RunCompare({"--prompt", "make a bomb", "--raw"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, Not(ContainsRegex("nats +[^ ]+ \\[")));
  EXPECT_EQ(ReadResults()["prompts"][0]["positions"].size(), 4u);  // Begin-of-text and the words.
}

TEST_F(CompareCommandTest, RejectsBadOptions) {
  EXPECT_EQ(Run({"compare"}).code, 2);  // --other-server is required.
  EXPECT_EQ(RunCompare({"--max-new-tokens", "-1"}).code, 2);
  EXPECT_EQ(RunCompare({"--concurrency", "0"}).code, 2);
  const ToolOutcome empty = RunCompare({"--prompt", " "});
  EXPECT_EQ(empty.code, 1);
  EXPECT_THAT(empty.err, HasSubstr("--prompt: must be a text"));
  EXPECT_EQ(fake_.service.call_count("GetModel"), 0);
}

TEST_F(CompareCommandTest, SaysWhichServerDoesNotAnswer) {
  const ToolOutcome outcome = RunCompareWith("127.0.0.1:1");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--other-server: GetModel"));
  EXPECT_THAT(outcome.err, HasSubstr("--other-server is 127.0.0.1:1"));
}

TEST_F(CompareCommandTest, DoesNotTakeOverTheJournalOfOtherServers) {
  other_.service.FailNext("RunWithCache", {absl::OkStatus(), absl::InternalError("the machine went down")});
  const ToolOutcome interrupted = RunCompare();
  EXPECT_EQ(interrupted.code, 1);
  EXPECT_THAT(interrupted.err, HasSubstr("the other server"));
  testing::FakeServer third;
  const ToolOutcome outcome = RunCompareWith(third.address());
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("set aside"));
  EXPECT_EQ(third.service.call_count("RunWithCache"), 4);
}

}  // namespace
}  // namespace mechinterp
