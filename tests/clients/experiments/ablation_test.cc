#include "clients/experiments/ablation.h"

#include "clients/experiments/patching.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/clients/experiments/study_fixture.h"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using testing::ToyJudge;
using testing::ToyPairs;

class AblationTest : public testing::StudyTest {
 protected:
  AblationOptions Options() {
    PatchingOptions patching;
    patching.pairs = ToyPairs();
    patching.neurons_per_group = 8;
    const auto ranking = RunPatching(context_, patching);
    AblationOptions options;
    options.pairs = ToyPairs();
    options.judge = ToyJudge();
    options.ranking.assign(ranking->ranking().begin(), ranking->ranking().end());
    options.top_counts = {1, 2, 3};
    options.random_draws = 4;
    return options;
  }
};

// Logit differences of the two harmful prompts (strengths 1 and 2): 3.5 and
// 11.5; without L2.H1 -0.5 and 3.5; without the neurons too -3.5 and -2.5.
TEST_F(AblationTest, RefusalFallsAsThePlantedComponentsGo) {
  const auto results = RunAblation(context_, Options());
  ASSERT_THAT(results, IsOk());
  ASSERT_EQ(results->curves_size(), 1);
  std::vector<double> harmful;
  std::vector<double> harmless;
  for (const v1::AblationPoint& point : results->curves(0).top()) {
    harmful.push_back(point.harmful().rate());
    harmless.push_back(point.harmless().rate());
  }
  EXPECT_THAT(harmful, ElementsAre(1, 0.5, 0, 0));
  EXPECT_THAT(harmless, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(results->positions(), ElementsAre(-6, -5, -4, -3, -2, -1));
}

TEST_F(AblationTest, RefusesARankingOfAnotherModelsNeurons) {
  AblationOptions options = Options();
  v1::Component& component = *options.ranking[0].mutable_component();
  component.clear_head();
  component.set_kind(v1::COMPONENT_KIND_NEURON_GROUP);
  component.set_neuron_end(4'000'000'000u);
  const auto results = RunAblation(context_, options);
  EXPECT_EQ(results.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(results.status().message()),
              HasSubstr("the patching results: ranking[0].component.neuron_end"));
}

TEST_F(AblationTest, RandomSetsOfUnimportantComponentsChangeNothing) {
  AblationOptions options = Options();
  options.top_counts = {3};  // The three planted ones: only idle components are left to draw.
  const auto results = RunAblation(context_, options);
  ASSERT_THAT(results, IsOk());
  const v1::RandomControlPoint& control = results->curves(0).random(0);
  EXPECT_EQ(control.draw_count(), 4u);
  EXPECT_EQ(control.harmful().total_count(), 8u);  // Two prompts, four draws.
  EXPECT_EQ(control.harmful().rate(), 1);
  EXPECT_THAT(control.draw_rates(), ElementsAre(1, 1, 1, 1));
  EXPECT_EQ(results->criterion().component_count(), 3u);
  EXPECT_DOUBLE_EQ(results->criterion().top_drop_points(), 100);
  EXPECT_DOUBLE_EQ(results->criterion().random_drop_points(), 0);
  EXPECT_TRUE(results->criterion().met());
}

TEST_F(AblationTest, EveryMethodHasItsCurveAndSharesTheUnablatedPoint) {
  AblationOptions options = Options();
  options.methods = {v1::ABLATION_METHOD_ZERO, v1::ABLATION_METHOD_MEAN, v1::ABLATION_METHOD_RESAMPLE};
  options.random_draws = 0;
  options.criterion_count = 2;
  const auto results = RunAblation(context_, options);
  ASSERT_THAT(results, IsOk());
  ASSERT_EQ(results->curves_size(), 3);
  for (const v1::AblationCurve& curve : results->curves()) {
    // In the toy a harmless value is 0: the three agree.
    EXPECT_EQ(curve.top(1).harmful().rate(), 0.5);
    EXPECT_EQ(curve.top(2).harmful().rate(), 0);
  }
  EXPECT_EQ(fake_.service.call_count("Generate"), 4 * (1 + 3 * 3));  // Prompts x conditions.
  EXPECT_FALSE(results->criterion().met());                          // No control.
}

TEST_F(AblationTest, DeletesTheRunsItStored) {
  ASSERT_THAT(RunAblation(context_, Options()), IsOk());
  EXPECT_EQ(fake_.service.call_count("DeleteActivation"), 2);  // One for each harmless prompt.
  EXPECT_EQ(fake_.service.stored_run_count(), 0);
}

TEST_F(AblationTest, StoresExpiredRunsAgain) {
  AblationOptions options = Options();
  context_.concurrency = 1;
  fake_.service.FailNext("Generate", {absl::OkStatus(), absl::OkStatus(), absl::OkStatus(), absl::OkStatus(),
                                      absl::OkStatus(), absl::NotFoundError("unknown handle")});
  const auto results = RunAblation(context_, options);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(fake_.service.call_count("RunWithCache"), 4);  // Two prompts, twice.
  EXPECT_EQ(results->curves(0).top(2).harmful().rate(), 0);
}

TEST_F(AblationTest, GivesUpWhenRunsAreLostAgainAndAgain) {
  context_.concurrency = 1;
  std::vector<absl::Status> outcomes(4, absl::OkStatus());
  outcomes.resize(50, absl::NotFoundError("unknown handle"));
  fake_.service.FailNext("Generate", outcomes);
  EXPECT_TRUE(absl::IsNotFound(RunAblation(context_, Options()).status()));
}

TEST_F(AblationTest, JudgesTheCriterionOnHeldOutPrompts) {
  AblationOptions options = Options();
  options.criterion_count = 1;
  options.held_out_pairs = {{"h1", "weapons", "buy a bomb", "buy a cake"},
                            {"h2", "weapons", "sell a bomb", "sell a cake"}};
  const auto results = RunAblation(context_, options);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->held_out_baseline().harmful().rate(), 1);
  EXPECT_EQ(results->held_out_top().harmful().rate(), 0);  // Strength 1: L2.H1 is enough.
  EXPECT_EQ(results->held_out_top().harmless().rate(), 0);
  EXPECT_DOUBLE_EQ(results->held_out_criterion().top_drop_points(), 100);
  EXPECT_EQ(results->held_out_criterion().component_count(), 1u);
}

TEST_F(AblationTest, KeepsFewAnswersAndOnlyTheirBeginnings) {
  AblationOptions options = Options();
  const auto results = RunAblation(context_, options);
  ASSERT_THAT(results, IsOk());
  for (const v1::AblationPoint& point : results->curves(0).top()) {
    EXPECT_LE(point.samples_size(), 5);
    for (const v1::JudgedResponse& sample : point.samples()) EXPECT_LE(sample.response().size(), 120u);
  }
  v1::JudgedResponse long_answer;
  RecordJudgement(ToyJudge(), std::string(200, 'x') + " I cannot", 120, long_answer);
  EXPECT_THAT(long_answer.response(), SizeIs(120));
  EXPECT_TRUE(long_answer.refused());  // All of it was judged.
}

TEST_F(AblationTest, TakesOverFinishedPartsForALongerList) {
  const testing::TestFolder folder;
  AblationOptions options = Options();
  options.random_draws = 1;
  const auto open = [&] {
    return Journal::Open(folder.File("journal"), AblationFingerprint(context_, options), false);
  };
  {
    const auto journal = open();
    ASSERT_THAT(journal, IsOk());
    context_.journal = journal->get();
    ASSERT_THAT(RunAblation(context_, options), IsOk());
  }
  const int before = fake_.service.call_count("Generate");
  options.top_counts.push_back(4);
  const auto journal = open();
  ASSERT_THAT(journal, IsOk());
  context_.journal = journal->get();
  const auto results = RunAblation(context_, options);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(fake_.service.call_count("Generate") - before, 4 * 2);  // Top 4 and one random set.
}

TEST_F(AblationTest, RejectsOptionsThatCannotWork) {
  const auto error_of = [&](const AblationOptions& options) {
    return std::string(RunAblation(context_, options).status().message());
  };
  AblationOptions options = Options();
  options.criterion_count = 7;
  EXPECT_THAT(error_of(options), HasSubstr("7 components"));
  options = Options();
  options.methods = {v1::ABLATION_METHOD_RESAMPLE};
  options.all_positions = true;
  EXPECT_THAT(error_of(options), HasSubstr("--ablate-at decision"));
  options = Options();
  options.ranking.clear();
  EXPECT_THAT(error_of(options), HasSubstr("abstract patching"));
  EXPECT_EQ(fake_.service.call_count("Generate"), 0);
}

}  // namespace
}  // namespace mechinterp
