// `abstract lens` and `abstract dla` against the toy model.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/clients/commands/tool_fixture.h"

namespace mechinterp {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::ToolOutcome;
using testing::ToolTest;

TEST_F(ToolTest, LensShowsThePositionLayerByLayer) {
  const ToolOutcome outcome = Run({"lens", "--refusal-phrases", phrases_, "--top", "2", "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              ContainsRegex("L0 pre +\"Sure\" 50.0 % +[-+][0-9.]+ +[-+][0-9.]+ +0.250 +50.0 % +3"));
  EXPECT_THAT(outcome.out,
              ContainsRegex("L0 post +\"I\" 50.0 % +[-+][0-9.]+ +[-+][0-9.]+ +0.000 +50.0 % +1"));
  EXPECT_THAT(outcome.err, HasSubstr("straight to the head"));
  const v1::RunReadoutRequest request = fake_.service.readout_requests().at(0);
  EXPECT_EQ(request.metrics().top_token_count(), 2u);
  EXPECT_GT(request.metrics().refusal_token_ids_size(), 0);
  EXPECT_EQ(request.positions().named(0), v1::NAMED_POSITION_LAST);
  EXPECT_FALSE(request.logit_lens().has_target_token_id());
}

TEST_F(ToolTest, LensShowsManyPositionsSideBySide) {
  const ToolOutcome outcome = Run({"lens", "--refusal-phrases", phrases_, "--positions", "0,1", "--resid-mid",
                                   "--target-id", "9", "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, ContainsRegex("stream +0 \"t0\" +1 \"t1\""));
  EXPECT_THAT(outcome.out, ContainsRegex("L0 post +\"I\" +[-+][0-9.]+ +50.0 % +\"I\" +[-+][0-9.]+ +50.0 %"));
  EXPECT_THAT(outcome.err, HasSubstr(", and the probability of "));
  const v1::RunReadoutRequest request = fake_.service.readout_requests().at(0);
  EXPECT_TRUE(request.logit_lens().resid_mid());
  EXPECT_EQ(request.logit_lens().target_token_id(), 9u);
  EXPECT_EQ(request.metrics().top_token_count(), 1u);  // as many as are shown
}

TEST_F(ToolTest, LensFetchesAsManyTokensAsItShows) {
  const auto counts = [&](const std::vector<std::string>& more) {
    const size_t before = fake_.service.readout_requests().size();
    std::vector<std::string> arguments = {"lens", "--refusal-phrases", phrases_, "--top", "7", "make a bomb"};
    arguments.insert(arguments.begin(), more.begin(), more.end() - 2);
    arguments.insert(arguments.end(), more.end() - 2, more.end());
    EXPECT_EQ(Run(arguments).code, 0);
    std::vector<uint32_t> asked;
    const auto requests = fake_.service.readout_requests();
    for (size_t i = before; i < requests.size(); ++i)
      asked.push_back(requests[i].metrics().top_token_count());
    return asked;
  };
  EXPECT_THAT(counts({"--positions", "0,1"}), ElementsAre(1u));
  EXPECT_THAT(counts({"--positions", "all"}), ElementsAre(1u, 7u));  // of the toy model one, of which all are
  EXPECT_THAT(counts({"--positions", "-1"}), ElementsAre(7u));
  EXPECT_THAT(counts({"--json", "--positions", "all"}), ElementsAre(7u));
}

TEST_F(ToolTest, LensNeedsNoMetricForTokenIds) {
  EXPECT_EQ(Run({"lens", "--token-ids", "4,5,6"}).code, 0);
  EXPECT_TRUE(fake_.service.readout_requests().at(0).metrics().refusal_token_ids().empty());
}

TEST_F(ToolTest, LensPrintsJson) {
  const ToolOutcome outcome = Run({"--json", "lens", "--refusal-phrases", phrases_, "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto report = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(report["model"]["name"], "toy");
  EXPECT_EQ(report["readings"].size(), 2u);
  EXPECT_EQ(report["readings"][1]["target"]["text"], "I");
}

TEST_F(ToolTest, DlaRanksSendersAndChecksTheirSum) {
  const ToolOutcome outcome =
      Run({"dla", "--refusal-phrases", phrases_, "--top", "2", "--neurons", "1", "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, ContainsRegex("L0.H0 +[-+][0-9.]+\n"));
  EXPECT_THAT(outcome.out, ContainsRegex("embed +\\+1.0000\n1 other +\\+0.0000\nsum of all 3 "));
  EXPECT_THAT(outcome.out, ContainsRegex("mean logit difference +[-+][0-9.]+"));
  EXPECT_THAT(outcome.out, ContainsRegex("neuron +contribution\n-+ +-+\nL0.N5 +\\+2.0000"));
  const v1::RunReadoutRequest request = fake_.service.readout_requests().at(0);
  EXPECT_EQ(request.direct_attribution().neuron_count(), 1u);
  EXPECT_GT(request.metrics().compliance_token_ids_size(), 0);
}

TEST_F(ToolTest, DlaNamesPositionsWhereThereAreMany) {
  const ToolOutcome outcome = Run(
      {"dla", "--token-ids", "4,5,6", "--refusal-ids", "7", "--compliance-ids", "8", "--positions", "0,1"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, ContainsRegex("position 0 \\(\"t0\"\\)"));
  EXPECT_THAT(outcome.out, ContainsRegex("position 1 \\(\"t1\"\\)"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("neuron")));
}

TEST_F(ToolTest, DlaPrintsJson) {
  const ToolOutcome outcome = Run({"--json", "dla", "--refusal-phrases", phrases_, "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto report = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(report["positions"][0]["contributions"].size(), 3u);
  EXPECT_EQ(report["positions"][0]["contributions"][1]["name"], "L0.H0");
}

TEST_F(ToolTest, DlaSaysWhichOptionIsMissing) {
  EXPECT_THAT(Run({"dla", "--token-ids", "2"}).err, HasSubstr("--refusal-ids: token ids have no text"));
}

}  // namespace
}  // namespace mechinterp
