#include "clients/experiments/ablation_plan.h"

#include <set>
#include <string>

#include "clients/experiments/ablation_criterion.h"
#include "clients/experiments/ablation_edits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;

v1::Component Head(uint32_t layer, uint32_t head) {
  v1::Component component;
  component.set_kind(v1::COMPONENT_KIND_HEAD);
  component.set_layer(layer);
  component.set_head(head);
  component.set_name("L" + std::to_string(layer) + ".H" + std::to_string(head));
  return component;
}

v1::Component Group(uint32_t layer, uint32_t begin, uint32_t end) {
  v1::Component component;
  component.set_kind(v1::COMPONENT_KIND_NEURON_GROUP);
  component.set_layer(layer);
  component.set_neuron_begin(begin);
  component.set_neuron_end(end);
  component.set_name("L" + std::to_string(layer) + ".N" + std::to_string(begin));
  return component;
}

// Two heads and a group lead; ten heads and five groups follow.
std::vector<v1::RankedComponent> Ranking() {
  std::vector<v1::Component> components = {Head(0, 0), Group(0, 0, 8), Head(0, 1)};
  for (uint32_t i = 0; i < 10; ++i) components.push_back(Head(1, i));
  for (uint32_t i = 0; i < 5; ++i) components.push_back(Group(1, 8 * i, 8 * i + 8));
  std::vector<v1::RankedComponent> ranking;
  for (const v1::Component& component : components) *ranking.emplace_back().mutable_component() = component;
  return ranking;
}

v1::GetModelResponse ModelOf(uint32_t layers, uint32_t heads, uint32_t neurons) {
  v1::GetModelResponse model;
  model.set_layer_count(layers);
  model.set_head_count(heads);
  model.set_d_ff(neurons);
  return model;
}

TEST(CheckRanking, TakesComponentsOfTheModelOnly) {
  EXPECT_THAT(CheckRanking(Ranking(), ModelOf(2, 10, 40)), IsOk());
  for (const auto& [model, problem] :
       {std::pair(ModelOf(1, 10, 40), "ranking[3].component.layer: must be below the model's 1"),
        std::pair(ModelOf(2, 9, 40), "ranking[12].component.head: must be below the model's 9"),
        std::pair(ModelOf(2, 10, 39),
                  "ranking[17].component.neuron_end: must be above neuron_begin and at "
                  "most the model's 39")}) {
    const absl::Status status = CheckRanking(Ranking(), model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(problem));
  }
}

// Listed neuron by neuron it would take 16 GB.
TEST(CheckRanking, RefusesAGroupOfFourBillionNeurons) {
  std::vector<v1::RankedComponent> ranking(1);
  *ranking[0].mutable_component() = Group(0, 0, 4'000'000'000u);
  EXPECT_FALSE(CheckRanking(ranking, ModelOf(2, 10, 40)).ok());
  *ranking[0].mutable_component() = Group(0, 8, 4);
  EXPECT_FALSE(CheckRanking(ranking, ModelOf(2, 10, 40)).ok());
  ranking[0].mutable_component()->set_kind(v1::COMPONENT_KIND_MLP_OUT);
  EXPECT_THAT(std::string(CheckRanking(ranking, ModelOf(2, 10, 40)).message()),
              ::testing::HasSubstr("ranking[0].component.kind"));
}

TEST(RandomComponents, HaveTheKindsOfTheTopAndNoneOfItsMembers) {
  const auto ranking = Ranking();
  for (int draw = 0; draw < 20; ++draw) {
    const auto drawn = RandomComponents(ranking, 3, draw, 1);
    ASSERT_TRUE(drawn.has_value());
    ASSERT_EQ(drawn->size(), 3u);
    std::set<std::string> names;
    int heads = 0;
    for (const v1::Component& component : *drawn) {
      EXPECT_EQ(component.layer(), 1u);
      heads += component.kind() == v1::COMPONENT_KIND_HEAD;
      names.insert(component.name());
    }
    EXPECT_EQ(heads, 2);
    EXPECT_EQ(names.size(), 3u);
  }
}

TEST(RandomComponents, DependOnSeedAndDrawOnly) {
  const auto names = [](int draw, uint64_t seed) {
    std::string joined;
    const auto drawn = RandomComponents(Ranking(), 3, draw, seed);
    for (const v1::Component& component : drawn.value()) joined += component.name() + " ";
    return joined;
  };
  EXPECT_EQ(names(0, 5), names(0, 5));
  std::set<std::string> different;
  for (int draw = 0; draw < 10; ++draw) different.insert(names(draw, 5));
  EXPECT_GT(different.size(), 3u);
}

TEST(RandomComponents, AreNoneWhenTooFewAreLeft) {
  EXPECT_FALSE(RandomComponents(Ranking(), 12, 0, 0).has_value());  // 11 heads lead, 1 is left.
}

TEST(ParameterShare, CountsWhatHeadsAndNeuronsOwn) {
  v1::GetModelResponse model;
  model.set_d_model(16);
  model.set_head_size(4);
  model.set_head_count(4);
  model.set_key_value_head_count(2);
  model.set_parameter_count(10000);
  // Query and output 2 * 16 * 4, half of a key and a value head's 2 * 16 * 4.
  EXPECT_DOUBLE_EQ(ParameterShare({Head(0, 0)}, model), (128 + 64) / 10000.0);
  // Gate, up and down rows of 8 neurons.
  EXPECT_DOUBLE_EQ(ParameterShare({Group(0, 8, 16)}, model), 8 * 3 * 16 / 10000.0);
  EXPECT_EQ(ParameterShare({}, model), 0);
}

TEST(AblationInterventions, PutsPositionMeansAtThePromptAndOneMeanAtWhatIsGenerated) {
  const auto edits =
      AblationInterventions({Head(2, 3), Head(2, 1)}, {v1::ABLATION_METHOD_MEAN, {-2, -1}, {"a", "b"}, 0});
  ASSERT_EQ(edits.size(), 2u);
  for (const v1::Intervention& edit : edits) {
    EXPECT_EQ(edit.site().point(), v1::HOOK_POINT_Z);
    EXPECT_EQ(edit.site().layer(), 2u);
    EXPECT_THAT(edit.selector().heads(), ElementsAre(1, 3));
    ASSERT_EQ(edit.mean_replacement().sources_size(), 2);
    EXPECT_EQ(edit.mean_replacement().sources(1).stored().handle(), "b");
  }
  EXPECT_EQ(edits[0].selector().scope(), v1::INTERVENTION_SCOPE_PROMPT);
  EXPECT_THAT(edits[0].selector().positions().indices(), ElementsAre(-2, -1));
  EXPECT_EQ(edits[0].mean_replacement().axis(), v1::MEAN_AXIS_SOURCES);
  EXPECT_EQ(edits[1].selector().scope(), v1::INTERVENTION_SCOPE_GENERATED);
  EXPECT_FALSE(edits[1].selector().has_positions());
  EXPECT_EQ(edits[1].mean_replacement().axis(), v1::MEAN_AXIS_UNSPECIFIED);
}

TEST(AblationInterventions, UsesOneMeanEverywhereWhenAllPositionsAreAblated) {
  const auto edits = AblationInterventions({Group(1, 4, 6)}, {v1::ABLATION_METHOD_MEAN, {}, {"a"}, 0});
  ASSERT_EQ(edits.size(), 1u);
  EXPECT_EQ(edits[0].site().point(), v1::HOOK_POINT_MLP_POST);
  EXPECT_THAT(edits[0].selector().dims(), ElementsAre(4, 5));
  EXPECT_EQ(edits[0].selector().scope(), v1::INTERVENTION_SCOPE_PROMPT_AND_GENERATED);
  EXPECT_EQ(edits[0].mean_replacement().axis(), v1::MEAN_AXIS_UNSPECIFIED);
}

TEST(AblationInterventions, ZeroesPromptAndGenerationAtOnce) {
  const auto edits =
      AblationInterventions({Head(0, 0), Group(0, 0, 2)}, {v1::ABLATION_METHOD_ZERO, {-1}, {}, 0});
  ASSERT_EQ(edits.size(), 2u);  // One for each kind.
  EXPECT_TRUE(edits[0].has_zeroing());
  EXPECT_EQ(edits[0].selector().scope(), v1::INTERVENTION_SCOPE_PROMPT_AND_GENERATED);
  EXPECT_THAT(edits[0].selector().positions().indices(), ElementsAre(-1));
}

TEST(AblationInterventions, ResamplesThePromptOnly) {
  const auto edits = AblationInterventions({Head(0, 0)}, {v1::ABLATION_METHOD_RESAMPLE, {-1}, {"a"}, 9});
  ASSERT_EQ(edits.size(), 2u);
  EXPECT_EQ(edits[0].resampling().seed(), 9u);
  EXPECT_EQ(edits[0].selector().scope(), v1::INTERVENTION_SCOPE_PROMPT);
  EXPECT_TRUE(edits[1].has_mean_replacement());
  EXPECT_EQ(edits[1].selector().scope(), v1::INTERVENTION_SCOPE_GENERATED);
}

v1::AblationCurve Curve() {
  v1::AblationCurve curve;
  const auto add = [&](uint32_t count, double top, double random) {
    v1::AblationPoint& point = *curve.add_top();
    point.set_component_count(count);
    point.mutable_harmful()->set_rate(top);
    if (count == 0) return;
    v1::RandomControlPoint& control = *curve.add_random();
    control.set_component_count(count);
    control.mutable_harmful()->set_rate(random);
  };
  add(0, 1.0, 0);
  add(1, 0.8, 1.0);
  add(5, 0.2, 0.9);   // Margin 70 points.
  add(10, 0.1, 0.5);  // Margin 40 points; random drops by 50.
  add(20, 0.0, 1.0);  // Margin 100 points, past the largest size.
  return curve;
}

TEST(Criterion, IsJudgedAtTheSizeGiven) {
  const auto criterion = CriterionAt(Curve(), 10, 30);
  ASSERT_THAT(criterion, IsOk());
  EXPECT_DOUBLE_EQ(criterion->top_drop_points(), 90);
  EXPECT_DOUBLE_EQ(criterion->random_drop_points(), 50);
  EXPECT_TRUE(criterion->top_exceeds());
  EXPECT_FALSE(criterion->random_stays_below());
  EXPECT_FALSE(criterion->met());
  EXPECT_TRUE(absl::IsInvalidArgument(CriterionAt(Curve(), 7, 30).status()));
}

TEST(Criterion, PicksTheSizeWhereTopAndRandomLieFurthestApart) {
  const auto criterion = BestCriterion(Curve(), 10, 30);
  ASSERT_THAT(criterion, IsOk());
  EXPECT_EQ(criterion->component_count(), 5u);
  EXPECT_TRUE(criterion->met());
}

TEST(Criterion, IsNotMetWithoutAControl) {
  EXPECT_FALSE(JudgeCriterion(30, 5, 1.0, 0.0, std::nullopt).met());
  EXPECT_TRUE(JudgeCriterion(30, 5, 1.0, 0.0, 0.95).met());
  EXPECT_FALSE(JudgeCriterion(30, 5, 1.0, 0.7, 0.95).met());  // 30 points are not more than 30.
}

}  // namespace
}  // namespace mechinterp
