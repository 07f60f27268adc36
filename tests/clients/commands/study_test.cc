#include "clients/commands/study.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/clients/commands/tool_fixture.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::TestFolder;
using testing::ToolOutcome;

class StudyCommandsTest : public testing::ToolTest {
 protected:
  nlohmann::json ReadResultsOf(const std::string& name) const {
    return nlohmann::json::parse(TestFolder::Read(Results(name)));
  }
};

TEST_F(StudyCommandsTest, RunFromBaselineToVerdict) {
  const ToolOutcome baseline = RunStudy("baseline");
  ASSERT_EQ(baseline.code, 0) << baseline.err;
  EXPECT_THAT(baseline.out, HasSubstr("weapons"));
  EXPECT_THAT(baseline.out, HasSubstr("100.0 %"));
  EXPECT_EQ(ReadResultsOf("01_baseline_results.json")["responses"].size(), 4u);

  const ToolOutcome patching = RunStudy("patching", {"--neurons-per-group", "8"});
  ASSERT_EQ(patching.code, 0) << patching.err;
  EXPECT_THAT(patching.out, HasSubstr("1     L2.H1      0.500"));
  EXPECT_EQ(ReadResultsOf("02_patching_results.json")["ranking"][0]["component"]["name"], "L2.H1");

  const ToolOutcome ablation = RunStudy(
      "ablation", {"--top-k", "1,3", "--criterion-k", "3", "--methods", "mean,zero", "--held-out", ""});
  ASSERT_EQ(ablation.code, 0) << ablation.err;
  EXPECT_THAT(ablation.out, HasSubstr("criterion at the top 3: refusals drop by 100.0 points"));
  EXPECT_THAT(ablation.out, HasSubstr(": MET"));
  EXPECT_THAT(ablation.out, HasSubstr("zero ablation"));
  const auto results = ReadResultsOf("03_ablation_results.json");
  EXPECT_EQ(results["criterion"]["met"], true);
  EXPECT_EQ(results["provenance"]["model"]["model_hash"], "0123456789abcdef");
  EXPECT_EQ(results["provenance"]["arguments"][4], "ablation");

  for (const auto& entry : std::filesystem::directory_iterator(folder_.File("out/results"))) {
    EXPECT_THAT(entry.path().string(), Not(HasSubstr("journal")));  // Nothing is left to resume.
  }
}

TEST_F(StudyCommandsTest, PrintOneJsonDocument) {
  const ToolOutcome baseline = RunStudy("baseline", {"--json"});
  ASSERT_EQ(baseline.code, 0) << baseline.err;
  EXPECT_EQ(nlohmann::json::parse(baseline.out), ReadResultsOf("01_baseline_results.json"));
  const ToolOutcome patching = RunStudy("patching", {"--json", "--neurons-per-group", "8"});
  ASSERT_EQ(patching.code, 0) << patching.err;
  EXPECT_EQ(nlohmann::json::parse(patching.out), ReadResultsOf("02_patching_results.json"));
  const ToolOutcome ablation =
      RunStudy("ablation", {"--json", "--top-k", "1", "--criterion-k", "1", "--held-out", ""});
  ASSERT_EQ(ablation.code, 0) << ablation.err;
  EXPECT_EQ(nlohmann::json::parse(ablation.out), ReadResultsOf("03_ablation_results.json"));
}

TEST_F(StudyCommandsTest, NoticeAnUnwritableResultBeforeTheWork) {
  std::filesystem::create_directories(Results("01_baseline_results.json"));  // A folder lies in the way.
  const ToolOutcome outcome = RunStudy("baseline");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("01_baseline_results.json"));
  EXPECT_EQ(fake_.service.call_count("GetModel"), 0);
}

TEST_F(StudyCommandsTest, GoOnAfterAnInterruption) {
  fake_.service.FailNext("Generate", {absl::OkStatus(), absl::InternalError("the machine went down")});
  const ToolOutcome interrupted = RunStudy("baseline", {"--concurrency", "1"});
  EXPECT_EQ(interrupted.code, 1);
  EXPECT_THAT(interrupted.err, HasSubstr("the machine went down"));
  EXPECT_FALSE(std::filesystem::exists(Results("01_baseline_results.json")));

  const ToolOutcome resumed = RunStudy("baseline");
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("resuming after 1 finished parts"));
  EXPECT_EQ(fake_.service.call_count("Generate"), 2 + 3);
}

TEST_F(StudyCommandsTest, BeginAnewWithOtherArgumentsAndSayWhy) {
  fake_.service.FailNext("Generate", {absl::OkStatus(), absl::InternalError("")});
  ASSERT_EQ(RunStudy("baseline", {"--concurrency", "1"}).code, 1);
  const ToolOutcome outcome = RunStudy("baseline", {"--seed", "3"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("--seed was 0, now 3"));
  EXPECT_EQ(fake_.service.call_count("Generate"), 2 + 4);
}

TEST_F(StudyCommandsTest, LimitThePairs) {
  ASSERT_EQ(RunStudy("baseline", {"--limit", "1"}).code, 0);
  EXPECT_EQ(ReadResultsOf("01_baseline_results.json")["provenance"]["pair_count"], 1);
}

TEST_F(StudyCommandsTest, AblationRefusesAnotherModelsRanking) {
  ASSERT_EQ(RunStudy("patching").code, 0);
  fake_.service.set_model_hash("another");
  const ToolOutcome outcome = RunStudy("ablation", {"--held-out", ""});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("ranks another model's components"));
}

TEST_F(StudyCommandsTest, AblationSaysThatPatchingComesFirst) {
  const ToolOutcome outcome = RunStudy("ablation", {"--held-out", ""});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("abstract patching"));
  EXPECT_THAT(outcome.err, HasSubstr("02_patching_results.json"));
}

TEST_F(StudyCommandsTest, AnUnmetCriterionIsAFinding) {
  ASSERT_EQ(RunStudy("patching", {"--neurons-per-group", "8"}).code, 0);
  const ToolOutcome outcome =
      RunStudy("ablation", {"--top-k", "1", "--threshold", "80", "--held-out", "", "--criterion-k", "1"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("NOT MET"));  // 50 points.
}

TEST_F(StudyCommandsTest, PatchingRejectsPositionsFromTheFront) {
  const ToolOutcome outcome = RunStudy("patching", {"--positions", "3"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--positions"));
}

TEST_F(StudyCommandsTest, QuietSaysNothingBesideTheAnswer) {
  EXPECT_EQ(RunStudy("baseline", {"--quiet"}).err, "");
}

}  // namespace
}  // namespace mechinterp
