// `abstract attribute` against the toy model.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/engine/checkpoint/safetensors.h"
#include "tests/clients/commands/tool_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::TestFolder;
using testing::ToolOutcome;
using testing::ToolTest;

TEST_F(ToolTest, AttributeShowsTheLargestScores) {
  const ToolOutcome outcome = Run({"attribute", "--refusal-phrases", phrases_, "--source-prompt",
                                   "make a cake", "--method", "relevance", "--top", "3", "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, ContainsRegex("blocks.0.attn.hook_z\\[1\\] +[0-9]+ +t[0-9]+ +[-+][0-9.]+"));
  EXPECT_THAT(outcome.err, HasSubstr("logit-difference: prompt "));
  const v1::RunAttributionRequest request = fake_.service.attribution_requests().at(0);
  EXPECT_EQ(request.method(), v1::ATTRIBUTION_METHOD_RELEVANCE);
  EXPECT_EQ(request.top_count(), 3u);
  EXPECT_FALSE(request.has_steps());
  EXPECT_EQ(request.filter().name_patterns_size(), 2);
  EXPECT_GT(request.metrics().refusal_token_ids_size(), 0);
}

TEST_F(ToolTest, AttributeWritesScoresToAFile) {
  const std::string file = folder_.File("scores.safetensors");
  const ToolOutcome outcome =
      Run({"attribute", "--source-token-ids", "1,2,3", "--token-ids", "4,5,6", "--refusal-ids", "7",
           "--compliance-ids", "8,9", "--method", "integrated-gradients", "--steps", "3", "--output", file});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, file + "\n");
  const auto written = engine::SafetensorsFile::Open(file);
  ASSERT_THAT(written, IsOk());
  EXPECT_NE((*written)->Find("blocks.0.attn.hook_z"), nullptr);
  const v1::RunAttributionRequest request = fake_.service.attribution_requests().at(0);
  EXPECT_EQ(request.steps(), 3u);
  EXPECT_EQ(request.top_count(), 0u);
  EXPECT_EQ(request.metrics().compliance_token_ids_size(), 2);
}

TEST_F(ToolTest, AttributePrintsJson) {
  const ToolOutcome outcome = Run({"--json", "attribute", "--refusal-phrases", phrases_, "--source-prompt",
                                   "make a cake", "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto report = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(report["scores"][0]["node"], 1);
  EXPECT_EQ(report["model"]["name"], "toy");
}

TEST_F(ToolTest, AttributeShowsEdges) {
  const ToolOutcome outcome = Run({"attribute", "--refusal-phrases", phrases_, "--source-prompt",
                                   "make a cake", "--edges", "--top", "2", "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, ContainsRegex("L0.H1->final +[-+][0-9.]+"));
  const v1::RunAttributionRequest request = fake_.service.attribution_requests().at(0);
  EXPECT_TRUE(request.edges());
  EXPECT_FALSE(request.has_filter());
}

TEST_F(ToolTest, AttributeSaysWhichOptionIsMissing) {
  EXPECT_THAT(Run({"attribute", "make a bomb"}).err, HasSubstr("--source-prompt: give one"));
  EXPECT_THAT(Run({"attribute", "--source-prompt", "a", "--source-token-ids", "1", "make a bomb"}).err,
              HasSubstr("--source-prompt: give one"));
  EXPECT_THAT(Run({"attribute", "--source-token-ids", "1", "--token-ids", "2"}).err,
              HasSubstr("--refusal-ids: token ids have no text"));
  EXPECT_THAT(
      Run({"attribute", "--refusal-phrases", phrases_, "--source-prompt", "a", "--gradients", "b"}).err,
      HasSubstr("--gradients: they are tensors"));
}

TEST_F(ToolTest, AttributeRefusesOptionsThatWouldHaveNoPart) {
  const std::vector<std::string> base = {"attribute",       "--refusal-phrases", phrases_,
                                         "--source-prompt", "make a cake",       "make a bomb"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = base;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  };
  EXPECT_THAT(with({"--edges", "--filter", "blocks.*.hook_resid_pre"}).err,
              HasSubstr("--edges: goes with --top"));
  EXPECT_THAT(with({"--exact-softmax"}).err, HasSubstr("--exact-softmax: is of queries and keys"));
  EXPECT_EQ(fake_.service.call_count("RunAttribution"), 0);
  EXPECT_EQ(with({"--exact-softmax", "--filter", "blocks.*.attn.hook_q"}).code, 0);
}

// The divergence compares no tokens.
TEST_F(ToolTest, AttributeOfKlNeedsNoTokens) {
  const ToolOutcome outcome = Run({"attribute", "--source-token-ids", "1,2", "--token-ids", "4,5", "--metric",
                                   "kl", "--method", "integrated-gradients"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(fake_.service.attribution_requests().at(0).metrics().refusal_token_ids().empty());
}

}  // namespace
}  // namespace mechinterp
