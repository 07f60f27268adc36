#include "clients/experiments/patching.h"

#include <cmath>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/clients/experiments/study_fixture.h"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::kTotalWeight;
using testing::ToyPairs;

class PatchingTest : public testing::StudyTest {
 protected:
  static PatchingOptions Options() {
    PatchingOptions options;
    options.pairs = ToyPairs();
    options.neurons_per_group = 8;
    return options;
  }

  static std::map<std::string, v1::ComponentEffect> ByName(const v1::PatchingResults& results,
                                                           v1::PatchDirection direction) {
    std::map<std::string, v1::ComponentEffect> effects;
    for (const v1::ComponentEffect& effect : results.effects()) {
      if (effect.direction() == direction) effects[effect.component().name()] = effect;
    }
    return effects;
  }
};

TEST_F(PatchingTest, FindsThePlantedComponents) {
  const auto results = RunPatching(context_, Options());
  ASSERT_THAT(results, IsOk());
  ASSERT_EQ(results->ranking_size(), 4 * 4 + 4 * 4);  // Heads and groups of 4 layers.
  EXPECT_EQ(results->ranking(0).component().name(), "L2.H1");
  EXPECT_NEAR(results->ranking(0).score(), 4 / kTotalWeight, 1e-12);
  EXPECT_EQ(results->ranking(1).component().name(), "L3.N8-15");
  EXPECT_NEAR(results->ranking(1).score(), 3 / kTotalWeight, 1e-12);
  EXPECT_EQ(results->ranking(2).component().name(), "L1.H0");
  EXPECT_NEAR(results->ranking(2).score(), 1 / kTotalWeight, 1e-12);
  EXPECT_NEAR(results->ranking(3).score(), 0, 1e-12);
  ASSERT_EQ(results->layers_size(), 4);
  EXPECT_NEAR(results->layers(2).importance(), 4 / kTotalWeight, 1e-12);
  EXPECT_NEAR(results->layers(3).neuron_importance(), 3 / kTotalWeight, 1e-12);
}

TEST_F(PatchingTest, EffectsHaveTheirClosedForm) {
  const auto results = RunPatching(context_, Options());
  ASSERT_THAT(results, IsOk());
  for (const auto direction : {v1::PATCH_DIRECTION_DENOISING, v1::PATCH_DIRECTION_NOISING}) {
    auto effects = ByName(*results, direction);
    EXPECT_EQ(effects.size(), static_cast<size_t>(3 * 4 * 6 + 16 + 16));
    for (int position = -6; position <= -1; ++position) {
      const std::string at = "@" + std::to_string(position);
      // One of six positions carries a sixth of what its layer, or those below, write.
      EXPECT_NEAR(effects["L2.attn_out" + at].effect().mean(), 4 / kTotalWeight / 6, 1e-12) << at;
      EXPECT_NEAR(effects["L3.mlp_out" + at].effect().mean(), 3 / kTotalWeight / 6, 1e-12) << at;
      EXPECT_NEAR(effects["L3.resid_pre" + at].effect().mean(), 5 / kTotalWeight / 6, 1e-12) << at;
      EXPECT_NEAR(effects["L0.resid_pre" + at].effect().mean(), 0, 1e-12) << at;
    }
    const v1::ComponentEffect& head = effects["L2.H1"];
    EXPECT_THAT(head.pair_indices(), ElementsAre(0, 1));
    EXPECT_THAT(head.pair_effects(), ElementsAre(0.5, 0.5));
    EXPECT_EQ(head.effect().lower(), 0.5);  // Equal samples: no width.
    EXPECT_EQ(head.effect().sample_count(), 2u);
  }
}

TEST_F(PatchingTest, DescribesWhatItPatched) {
  const auto results = RunPatching(context_, Options());
  ASSERT_THAT(results, IsOk());
  EXPECT_THAT(results->positions(), ElementsAre(-6, -5, -4, -3, -2, -1));
  EXPECT_THAT(results->position_labels(),
              ElementsAre("last instruction token", "<|eot_id|>", "<|start_header_id|>", "assistant",
                          "<|end_header_id|>", "\n\n"));
  EXPECT_THAT(results->pair_ids(), ElementsAre("p1", "p2"));
  EXPECT_EQ(results->run_count(), 2u * 2 * (3 * 4 * 6 + 16 + 16));
  EXPECT_EQ(results->layer_count(), 4u);
}

TEST_F(PatchingTest, SendsTheOtherPromptAsSource) {
  PatchingOptions options = Options();
  options.directions = {v1::PATCH_DIRECTION_NOISING};
  ASSERT_THAT(RunPatching(context_, options), IsOk());
  const auto requests = fake_.service.sweep_requests();
  ASSERT_EQ(requests.size(), 6u);  // Two pairs, three families.
  for (const v1::RunPatchSweepRequest& request : requests) {
    EXPECT_THAT(request.prompt().chat().messages(0).content(), HasSubstr("bomb"));
    EXPECT_THAT(request.source_prompt().chat().messages(0).content(), HasSubstr("cake"));
    EXPECT_EQ(
        request.grid().prototype().replacement().source().prompt().prompt().chat().messages(0).content(),
        request.source_prompt().chat().messages(0).content());
    EXPECT_GT(request.metrics().refusal_token_ids_size(), 0);
    EXPECT_GT(request.metrics().compliance_token_ids_size(), 0);
  }
}

TEST_F(PatchingTest, LeavesUnequalPairsOutWhenAllPositionsArePatched) {
  PatchingOptions options = Options();
  options.all_positions = true;
  options.pairs[1].harmless = "cake";
  const auto results = RunPatching(context_, options);
  ASSERT_THAT(results, IsOk());
  EXPECT_THAT(results->pair_ids(), ElementsAre("p1"));
  EXPECT_EQ(results->positions_size(), 1 + 4 + 3 + 5);  // Template, "make a bomb", tail.
  EXPECT_EQ(results->position_labels(0), "<|begin_of_text|>");
  EXPECT_EQ(results->position_labels(7), "last instruction token");
  EXPECT_NEAR(results->ranking(0).score(), 0.5, 1e-12);

  options.pairs[0].harmless = "cake";
  EXPECT_TRUE(absl::IsInvalidArgument(RunPatching(context_, options).status()));
}

TEST_F(PatchingTest, LeavesPairsWithoutADifferenceOutOfTheMean) {
  PatchingOptions options = Options();
  options.pairs.push_back({"p3", "weapons", "make a bomb", "buy a bomb"});
  const auto results = RunPatching(context_, options);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->ranking(0).denoising().sample_count(), 2u);
  EXPECT_EQ(results->pair_ids_size(), 3);
}

TEST_F(PatchingTest, GoesOnFromItsJournalWithTheSameResult) {
  const testing::TestFolder folder;
  const PatchingOptions options = Options();
  const auto expected = RunPatching(context_, options);
  const Fingerprint fingerprint = PatchingFingerprint(context_, options);
  context_.concurrency = 1;
  {
    const auto journal = Journal::Open(folder.File("journal"), fingerprint, false);
    ASSERT_THAT(journal, IsOk());
    context_.journal = journal->get();
    std::vector<absl::Status> outcomes(5, absl::OkStatus());
    outcomes.push_back(absl::InternalError("killed"));
    fake_.service.FailNext("RunPatchSweep", outcomes);
    EXPECT_FALSE(RunPatching(context_, options).ok());
  }
  const int before = fake_.service.call_count("RunPatchSweep");
  const auto journal = Journal::Open(folder.File("journal"), fingerprint, false);
  ASSERT_THAT(journal, IsOk());
  context_.journal = journal->get();
  const auto results = RunPatching(context_, options);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(fake_.service.call_count("RunPatchSweep") - before, 12 - 5);
  ASSERT_EQ(results->effects_size(), expected->effects_size());
  for (int i = 0; i < results->effects_size(); ++i) {
    EXPECT_EQ(results->effects(i).SerializeAsString(), expected->effects(i).SerializeAsString()) << i;
  }
}

TEST_F(PatchingTest, ChoosesASixteenthOfTheNeuronsRoundedUp) {
  PatchingOptions options = Options();
  options.neurons_per_group = 0;  // 32 / 16
  const auto results = RunPatching(context_, options);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->ranking_size(), 16 + 4 * 16);
}

}  // namespace
}  // namespace mechinterp
