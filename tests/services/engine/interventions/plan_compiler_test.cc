#include "services/engine/interventions/plan_compiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/engine/interventions/apply_hooks.h"

namespace mechinterp::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.layers.resize(2);
  config.head_count = 4;
  config.key_value_head_count = 2;
  config.head_size = 6;
  config.d_model = 8;
  config.d_ff = 10;
  config.vocabulary_size = 20;
  config.context_length = 64;
  return config;
}

TokenizedPrompt PromptOf(int length) { return {std::vector<TokenId>(length, 1), {}}; }

class PlanCompilerTest : public testing::Test {
 protected:
  // "field: description" of everything wrong with one intervention on 5 tokens.
  std::vector<std::string> ProblemsOf(const Intervention& intervention) {
    Violations list;
    PlanCompiler compiler(SmallConfig());
    compiler.Add(PromptOf(5), {intervention}, {}, list.root());
    std::vector<std::string> texts;
    for (const Violation& violation : list.list())
      texts.push_back(violation.field + ": " + violation.description);
    return texts;
  }
  CompiledEdit Compile(const Intervention& intervention) {
    Violations list;
    PlanCompiler compiler(SmallConfig());
    compiler.Add(PromptOf(5), {intervention}, {}, list.root());
    EXPECT_TRUE(list.empty());
    return compiler.Finish({})[0]->edits.begin()->second[0];
  }
  Intervention intervention_{{HookPoint::kZ, 1}, {}, Zeroing{}};
};

TEST_F(PlanCompilerTest, NamesALayerPastTheLast) {
  intervention_.site.layer = 2;
  EXPECT_THAT(ProblemsOf(intervention_),
              ElementsAre("interventions[0].site.layer: layer 2 is not in [0, 2)"));
}

TEST_F(PlanCompilerTest, APathNeedsASenderBeforeAReader) {
  const ActivationSource source{PromptOf(5), {}, {}, {}};
  const auto problems_of = [&](const HookSite& site, const PathPatch& path) {
    intervention_.site = site;
    intervention_.edit = path;
    return ProblemsOf(intervention_);
  };
  const HookSite reader{HookPoint::kQInput, 1};
  EXPECT_THAT(problems_of(reader, {{HookPoint::kEmbed, 0}, {}, source}), IsEmpty());
  EXPECT_THAT(problems_of(reader, {{HookPoint::kResult, 0}, 3, source}), IsEmpty());
  EXPECT_THAT(problems_of({HookPoint::kMlpIn, 0}, {{HookPoint::kResult, 0}, 0, source}), IsEmpty());
  EXPECT_THAT(problems_of({HookPoint::kResidPost, 1}, {{HookPoint::kMlpOut, 1}, {}, source}), IsEmpty());
  EXPECT_THAT(
      problems_of(reader, {{HookPoint::kMlpOut, 1}, {}, source}),
      ElementsAre("interventions[0].path_patch.sender: blocks.1.hook_q_input does not read the residual "
                  "stream after blocks.1.hook_mlp_out"));
  EXPECT_THAT(problems_of({HookPoint::kZ, 1}, {{HookPoint::kEmbed, 0}, {}, source}),
              ElementsAre(HasSubstr("blocks.1.attn.hook_z does not read")));
  EXPECT_THAT(problems_of(reader, {{HookPoint::kMlpPost, 0}, {}, source}),
              ElementsAre(HasSubstr("path_patch.sender: blocks.0.mlp.hook_post is nothing that is added")));
  EXPECT_THAT(problems_of(reader, {{HookPoint::kResult, 0}, {}, source}),
              ElementsAre("interventions[0].path_patch.sender_head: goes with hook_result, which needs it"));
  EXPECT_THAT(problems_of(reader, {{HookPoint::kMlpOut, 0}, 1, source}),
              ElementsAre("interventions[0].path_patch.sender_head: goes with hook_result, which needs it"));
  EXPECT_THAT(problems_of(reader, {{HookPoint::kResult, 0}, 4, source}),
              ElementsAre("interventions[0].path_patch.sender_head: head 4 is not in [0, 4)"));
  EXPECT_THAT(problems_of(reader, {{HookPoint::kResult, 2}, 0, source}),
              ElementsAre("interventions[0].path_patch.sender.layer: layer 2 is not in [0, 2)"));
  EXPECT_THAT(problems_of(reader, {{HookPoint::kEmbed, 0}, {}, {PromptOf(4), {}, {}, {}}}),
              ElementsAre(HasSubstr("path_patch.source: the prompts differ in length")));
  EXPECT_THAT(
      problems_of(reader, {{HookPoint::kEmbed, 0}, {}, {HostTensor{{8}, std::vector<float>(8)}, {}, {}, {}}}),
      ElementsAre("interventions[0].path_patch.source: must be a stored run or a prompt"));
  intervention_.selector.dims = {1};
  EXPECT_THAT(problems_of(reader, {{HookPoint::kEmbed, 0}, {}, source}),
              ElementsAre(HasSubstr("leave selector.dims empty")));
}

TEST_F(PlanCompilerTest, NamesALayerWhereThereIsNone) {
  intervention_.site = {HookPoint::kLogits, 1};
  EXPECT_THAT(ProblemsOf(intervention_), ElementsAre(HasSubstr("site.layer: logits has no layer")));
}

TEST_F(PlanCompilerTest, NamesEveryHeadDimAndPositionOutOfRange) {
  intervention_.selector.heads = {0, 4};
  intervention_.selector.dims = {6};
  intervention_.selector.positions.indices = {5, -6};
  intervention_.selector.positions.ranges = {{3, 3}};
  EXPECT_THAT(
      ProblemsOf(intervention_),
      ElementsAre(HasSubstr("selector.positions.indices[0]: position 5 is outside the prompt of 5"),
                  HasSubstr("selector.positions.indices[1]: position -6"),
                  HasSubstr("selector.positions.ranges[0]"), HasSubstr("selector.heads[1]: head 4 is not in"),
                  HasSubstr("selector.dims[0]: dim 6 is not in [0, 6)")));
}

TEST_F(PlanCompilerTest, KeyValueHeadsAreCountedAtKeysAndValues) {
  intervention_.site.point = HookPoint::kK;
  intervention_.selector.heads = {2};
  EXPECT_THAT(ProblemsOf(intervention_), ElementsAre(HasSubstr("head 2 is not in [0, 2)")));
}

TEST_F(PlanCompilerTest, HeadsNeedAHeadAxis) {
  intervention_.site.point = HookPoint::kMlpOut;
  intervention_.selector.heads = {0};
  EXPECT_THAT(ProblemsOf(intervention_),
              ElementsAre(HasSubstr("selector.heads: blocks.1.hook_mlp_out has no head")));
}

TEST_F(PlanCompilerTest, AllPositionsOfUnequalPromptsDoNotCorrespond) {
  intervention_.edit = Replacement{{PromptOf(7), {}, {}, {}}};
  EXPECT_THAT(ProblemsOf(intervention_),
              ElementsAre(testing::AllOf(HasSubstr("interventions[0].replacement.source: "),
                                         HasSubstr("differ in length (5 and 7 tokens), so all positions"))));
}

TEST_F(PlanCompilerTest, PositionsFromTheEndOfUnequalPromptsDo) {
  intervention_.edit = Replacement{{PromptOf(7), {}, {}, {}}};
  intervention_.selector.positions.indices = {-1, -3};
  Violations list;
  PlanCompiler compiler(SmallConfig());
  compiler.Add(PromptOf(5), {intervention_}, {}, list.root());
  EXPECT_TRUE(list.empty());
  ASSERT_EQ(compiler.source_runs().size(), 1u);
  EXPECT_THAT(compiler.source_runs()[0].positions, ElementsAre(4, 6));
}

TEST_F(PlanCompilerTest, EqualSourcePromptsRunOnce) {
  Violations list;
  PlanCompiler compiler(SmallConfig());
  for (int layer : {0, 1}) {
    Intervention intervention{{HookPoint::kZ, layer}, {}, Replacement{{PromptOf(5), {}, {}, {}}}};
    compiler.Add(PromptOf(5), {intervention}, {}, list.root());
  }
  ASSERT_EQ(compiler.source_runs().size(), 1u);
  EXPECT_EQ(compiler.source_runs()[0].sites.size(), 2u);
}

TEST_F(PlanCompilerTest, ATensorMustFitTheSelectedPart) {
  intervention_.selector.heads = {1, 3};
  intervention_.edit = Addition{{{2, 5}, std::vector<float>(10)}, 1};
  EXPECT_THAT(ProblemsOf(intervention_),
              ElementsAre(HasSubstr("addition.vector.shape: is [2, 5]; the selected part takes [5, 2, 6]")));
}

TEST_F(PlanCompilerTest, AZeroDirectionIsRefused) {
  intervention_.edit = ProjectionRemoval{{{6}, std::vector<float>(6)}};
  EXPECT_THAT(ProblemsOf(intervention_), ElementsAre(HasSubstr("the direction is zero")));
}

TEST_F(PlanCompilerTest, ScopeFollowsFromWhatIsSelected) {
  EXPECT_TRUE(Compile(intervention_).generated);
  intervention_.selector.positions.indices = {-1};
  EXPECT_FALSE(Compile(intervention_).generated);
  intervention_.selector.scope = InterventionScope::kPromptAndGenerated;
  EXPECT_TRUE(Compile(intervention_).generated);
  intervention_.selector.positions = {};
  intervention_.selector.scope = InterventionScope::kGenerated;
  EXPECT_THAT(Compile(intervention_).positions, IsEmpty());
}

TEST_F(PlanCompilerTest, ValuesForEachPromptPositionCannotReachGeneratedOnes) {
  intervention_.edit = Replacement{{PromptOf(5), {}, {}, {}}};
  intervention_.selector.scope = InterventionScope::kPromptAndGenerated;
  EXPECT_THAT(ProblemsOf(intervention_),
              ElementsAre(HasSubstr("selector.scope: this edit has a value for each prompt")));
}

TEST_F(PlanCompilerTest, NamedPositionsNeedAChat) {
  intervention_.selector.positions.named = {NamedPosition::kTemplateTail};
  EXPECT_THAT(ProblemsOf(intervention_), ElementsAre(HasSubstr("positions.named[0]: only a chat prompt")));
}

TEST_F(PlanCompilerTest, ASourceTooShortForAMeanIsNamed) {
  intervention_.edit = MeanReplacement{{{PromptOf(3), {}, {}, {}}}, MeanAxis::kSources};
  EXPECT_THAT(ProblemsOf(intervention_), ElementsAre(HasSubstr("none is long enough")));
}

TEST_F(PlanCompilerTest, AnEmptyMeanIsRefused) {
  intervention_.edit = MeanReplacement{};
  EXPECT_THAT(ProblemsOf(intervention_),
              ElementsAre(HasSubstr("mean_replacement.sources: must not be empty")));
}

TEST_F(PlanCompilerTest, AStoredRunMustHoldWhatIsRead) {
  auto run = std::make_shared<RecordedRun>();
  run->prompt = PromptOf(5);
  run->activations[{HookPoint::kZ, 1}] = {{{1, 4, 6}, std::vector<float>(24)}, {4}};
  intervention_.edit = Replacement{{std::shared_ptr<const RecordedRun>(run), {}, {}, {}}};
  EXPECT_THAT(ProblemsOf(intervention_), ElementsAre(HasSubstr("the stored run has no position 0")));
  intervention_.selector.positions.indices = {-1};
  EXPECT_THAT(ProblemsOf(intervention_), IsEmpty());
  intervention_.site.layer = 0;
  EXPECT_THAT(ProblemsOf(intervention_),
              ElementsAre(HasSubstr("the stored run has no blocks.0.attn.hook_z")));
}

// Which source a seed draws is fixed; over many seeds each is drawn.
TEST_F(PlanCompilerTest, ResamplingDrawsASourceBySeed) {
  std::vector<std::shared_ptr<const RecordedRun>> runs;
  Resampling resampling;
  for (float value : {1.f, 2.f, 3.f}) {
    auto run = std::make_shared<RecordedRun>();
    run->prompt = PromptOf(7);
    run->activations[{HookPoint::kZ, 1}] = {{{1, 4, 6}, std::vector<float>(24, value)}, {6}};
    resampling.sources.push_back({std::shared_ptr<const RecordedRun>(run), {}, {}, {}});
  }
  intervention_.selector.positions.indices = {-1};
  std::map<float, int> drawn;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    resampling.seed = seed;
    intervention_.edit = resampling;
    const float value = std::get<SetValues>(Compile(intervention_).change).values.At(0, 0, 0);
    EXPECT_EQ(value, std::get<SetValues>(Compile(intervention_).change).values.At(0, 0, 0));
    ++drawn[value];
  }
  for (float value : {1.f, 2.f, 3.f}) EXPECT_GT(drawn[value], 8);
}

// The value at an element depends on seed, site, position and element alone.
TEST_F(PlanCompilerTest, NoiseIsGaussianAndIndependentOfTheRowsAround) {
  intervention_.site = {HookPoint::kResidPre, 0};
  intervention_.edit = NoiseAddition{2.0, 9};
  const CompiledEdit edit = Compile(intervention_);
  constexpr int kRows = 2000, kWidth = 8;
  std::vector<float> all(kRows * kWidth, 0), late(10 * kWidth, 0);
  ApplyEdit(edit, 5, all.data(), {0, kRows, 1, kWidth});
  ApplyEdit(edit, 5, late.data(), {kRows - 10, 10, 1, kWidth});
  EXPECT_EQ(late, std::vector<float>(all.end() - 10 * kWidth, all.end()));
  double sum = 0, squares = 0;
  for (float v : all) {
    sum += v;
    squares += double{v} * v;
  }
  EXPECT_NEAR(sum / all.size(), 0, 0.08);        // 5 standard errors
  EXPECT_NEAR(squares / all.size(), 4.0, 0.23);  // 5 standard errors
}

// Taken one position after the other, these would be 10^11.
TEST(ResolvePositions, AMillionRangesOfALongPromptAreItsPositionsOnce) {
  constexpr int kLength = 100'000;
  PositionSelector selector;
  selector.ranges.assign(1'000'000, {1, -1});
  selector.indices.assign(1'000'000, -1);
  Violations list;
  const std::vector<int> positions = ResolvePositions(selector, PromptOf(kLength), list.root());
  EXPECT_TRUE(list.empty());
  ASSERT_EQ(positions.size(), kLength - 1u);
  EXPECT_EQ(positions.front(), 1);
  EXPECT_EQ(positions.back(), kLength - 1);
}

TEST(ResolvePositions, IsAUnionInAscendingOrder) {
  PositionSelector selector;
  selector.indices = {7, -10, 3};
  selector.ranges = {{5, 7}, {2, 4}, {-2, {}}};
  Violations list;
  EXPECT_THAT(ResolvePositions(selector, PromptOf(10), list.root()), ElementsAre(0, 2, 3, 5, 6, 7, 8, 9));
}

TEST(EarliestChange, IsTheFirstEditedLayerAndPosition) {
  HookPlan plan;
  plan.prompt_length = 5;
  EXPECT_EQ(EarliestChange(plan, 2).layer, 2);
  EXPECT_EQ(EarliestChange(plan, 2).position, 5);
  CompiledEdit edit;
  edit.site = {HookPoint::kZ, 1};
  edit.positions = {3, 4};
  plan.edits[edit.site] = {edit};
  EXPECT_EQ(EarliestChange(plan, 2).layer, 1);
  EXPECT_EQ(EarliestChange(plan, 2).position, 3);
  EXPECT_EQ(EarliestChange(plan, 2).point, HookPoint::kZ);
  edit.site = {HookPoint::kLogits, 0};
  edit.positions = {2};
  plan.edits = {{edit.site, {edit}}};
  EXPECT_EQ(EarliestChange(plan, 2).layer, 2);
  EXPECT_EQ(EarliestChange(plan, 2).point, HookPoint::kResidPre);
}

TEST(EarliestChange, IsWithinABlockWhereARunMayEnter) {
  HookPlan plan;
  plan.prompt_length = 70;
  auto point_of = [&](const std::vector<HookPoint>& points, int position) {
    plan.edits.clear();
    for (HookPoint point : points) {
      CompiledEdit edit;
      edit.site = {point, 1};
      edit.positions = {position};
      plan.edits[edit.site] = {edit};
    }
    return EarliestChange(plan, 2).point;
  };
  EXPECT_EQ(point_of({HookPoint::kPattern}, 60), HookPoint::kResidPre);
  EXPECT_EQ(point_of({HookPoint::kResult}, 60), HookPoint::kZ);
  EXPECT_EQ(point_of({HookPoint::kMlpPre}, 60), HookPoint::kZ);
  EXPECT_EQ(point_of({HookPoint::kMlpOut}, 60), HookPoint::kMlpPost);
  EXPECT_EQ(point_of({HookPoint::kMlpOut, HookPoint::kQ}, 60), HookPoint::kResidPre);
  EXPECT_EQ(point_of({HookPoint::kResidPost}, 6), HookPoint::kMlpPost);
  EXPECT_EQ(point_of({HookPoint::kResidPost}, 5), HookPoint::kResidPre);  // 65 positions
}

}  // namespace
}  // namespace mechinterp::engine
