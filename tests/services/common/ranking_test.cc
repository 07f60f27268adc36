#include "services/common/ranking.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mechinterp {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

v1::Component Head(int layer, int head) {
  v1::Component component;
  component.set_kind(v1::COMPONENT_KIND_HEAD);
  component.set_layer(layer);
  component.set_head(head);
  component.set_name(ComponentName(component));
  return component;
}

v1::Component Neurons(int layer, int begin, int end) {
  v1::Component component;
  component.set_kind(v1::COMPONENT_KIND_NEURON_GROUP);
  component.set_layer(layer);
  component.set_neuron_begin(begin);
  component.set_neuron_end(end);
  component.set_name(ComponentName(component));
  return component;
}

v1::Component At(v1::ComponentKind kind, int layer, int position) {
  v1::Component component;
  component.set_kind(kind);
  component.set_layer(layer);
  component.set_position(position);
  component.set_name(ComponentName(component));
  return component;
}

v1::ComponentEffect Effect(const v1::Component& component, v1::PatchDirection direction, double mean) {
  v1::ComponentEffect effect;
  *effect.mutable_component() = component;
  effect.set_direction(direction);
  effect.mutable_effect()->set_mean(mean);
  return effect;
}

std::vector<v1::RankedComponent> Rank(const std::vector<v1::ComponentEffect>& effects) {
  std::vector<const v1::ComponentEffect*> pointers;
  for (const v1::ComponentEffect& effect : effects) pointers.push_back(&effect);
  return RankComponents(pointers);
}

constexpr v1::PatchDirection kDenoising = v1::PATCH_DIRECTION_DENOISING;
constexpr v1::PatchDirection kNoising = v1::PATCH_DIRECTION_NOISING;

TEST(RankComponents, OrdersByTheMeanOfBothDirections) {
  const auto ranking = Rank({
      Effect(Head(1, 0), kDenoising, 0.5),
      Effect(Neurons(2, 0, 32), kDenoising, 0.9),
      Effect(Head(1, 0), kNoising, 0.25),
      Effect(Neurons(2, 0, 32), kNoising, -0.4),
  });
  ASSERT_THAT(ranking, SizeIs(2));
  EXPECT_EQ(ranking[0].component().name(), "L1.H0");
  EXPECT_EQ(ranking[0].rank(), 1);
  EXPECT_DOUBLE_EQ(ranking[0].score(), 0.375);
  EXPECT_DOUBLE_EQ(ranking[0].denoising().mean(), 0.5);
  EXPECT_DOUBLE_EQ(ranking[0].noising().mean(), 0.25);
  EXPECT_EQ(ranking[1].component().name(), "L2.N0-31");
  EXPECT_EQ(ranking[1].rank(), 2);
  EXPECT_DOUBLE_EQ(ranking[1].score(), 0.25);
}

TEST(RankComponents, TakesTheOneDirectionThatWasMeasured) {
  const auto ranking = Rank({Effect(Head(0, 0), kNoising, 0.5), Effect(Head(0, 1), kDenoising, 0.75)});
  ASSERT_THAT(ranking, SizeIs(2));
  EXPECT_DOUBLE_EQ(ranking[0].score(), 0.75);
  EXPECT_FALSE(ranking[0].has_noising());
  EXPECT_DOUBLE_EQ(ranking[1].score(), 0.5);
}

TEST(RankComponents, BreaksTiesByLayerThenName) {
  const auto ranking = Rank({
      Effect(Head(2, 0), kDenoising, 0.5),
      Effect(Neurons(1, 0, 4), kDenoising, 0.5),
      Effect(Head(1, 3), kDenoising, 0.5),
  });
  ASSERT_THAT(ranking, SizeIs(3));
  EXPECT_EQ(ranking[0].component().name(), "L1.H3");
  EXPECT_EQ(ranking[1].component().name(), "L1.N0-3");
  EXPECT_EQ(ranking[2].component().name(), "L2.H0");
}

TEST(RankComponents, SkipsOtherKindsAndWhatHasNoNumber) {
  EXPECT_THAT(Rank({
                  Effect(At(v1::COMPONENT_KIND_RESID_PRE, 0, -1), kDenoising, 1),
                  Effect(At(v1::COMPONENT_KIND_MLP_OUT, 0, -1), kDenoising, 1),
                  Effect(Head(0, 0), v1::PATCH_DIRECTION_UNSPECIFIED, 1),
                  Effect(Head(0, 1), kDenoising, std::numeric_limits<double>::quiet_NaN()),
              }),
              IsEmpty());
}

TEST(ImportanceByLayer, SumsPositiveScoresByKind) {
  const auto layers = ImportanceByLayer(
      Rank({Effect(Head(0, 0), kDenoising, 0.5), Effect(Head(0, 1), kDenoising, -0.25),
            Effect(Neurons(0, 0, 4), kDenoising, 0.125), Effect(Neurons(2, 0, 4), kDenoising, 0.25)}),
      3);
  ASSERT_THAT(layers, SizeIs(3));
  EXPECT_DOUBLE_EQ(layers[0].importance(), 0.625);
  EXPECT_DOUBLE_EQ(layers[0].head_importance(), 0.5);
  EXPECT_DOUBLE_EQ(layers[0].neuron_importance(), 0.125);
  EXPECT_DOUBLE_EQ(layers[1].importance(), 0);
  EXPECT_EQ(layers[2].layer(), 2);
  EXPECT_DOUBLE_EQ(layers[2].neuron_importance(), 0.25);
}

TEST(ImportanceByLayer, IgnoresComponentsOutsideTheModel) {
  const auto layers = ImportanceByLayer(Rank({Effect(Head(9, 0), kDenoising, 0.5)}), 2);
  ASSERT_THAT(layers, SizeIs(2));
  EXPECT_DOUBLE_EQ(layers[0].importance() + layers[1].importance(), 0);
  EXPECT_THAT(ImportanceByLayer({}, 0), IsEmpty());
}

TEST(ComponentName, FollowsTheFieldsHabits) {
  EXPECT_EQ(ComponentName(Head(3, 5)), "L3.H5");
  EXPECT_EQ(ComponentName(Neurons(4, 0, 32)), "L4.N0-31");
  EXPECT_EQ(ComponentName(At(v1::COMPONENT_KIND_ATTN_OUT, 2, -1)), "L2.attn_out@-1");
  EXPECT_EQ(ComponentName(At(v1::COMPONENT_KIND_MLP_OUT, 2, -5)), "L2.mlp_out@-5");
  EXPECT_EQ(ComponentName(At(v1::COMPONENT_KIND_RESID_PRE, 0, -2)), "L0.resid_pre@-2");
}

TEST(AddMissingRanking, RanksTheEffects) {
  v1::PatchingResults results;
  results.set_layer_count(2);
  *results.add_effects() = Effect(Head(0, 0), kDenoising, 0.25);
  *results.add_effects() = Effect(Head(1, 0), kDenoising, 0.5);
  AddMissingRanking(results);
  ASSERT_EQ(results.ranking_size(), 2);
  EXPECT_EQ(results.ranking(0).component().name(), "L1.H0");
  ASSERT_EQ(results.layers_size(), 2);
  EXPECT_DOUBLE_EQ(results.layers(0).importance(), 0.25);
}

TEST(AddMissingRanking, LeavesWhatIsThere) {
  v1::PatchingResults results;
  results.set_layer_count(1);
  *results.add_effects() = Effect(Head(0, 0), kDenoising, 0.25);
  results.add_ranking()->set_score(0.75);
  results.add_layers()->set_importance(3);
  AddMissingRanking(results);
  ASSERT_EQ(results.ranking_size(), 1);
  EXPECT_EQ(results.ranking(0).score(), 0.75);
  ASSERT_EQ(results.layers_size(), 1);
  EXPECT_EQ(results.layers(0).importance(), 3);
}

}  // namespace
}  // namespace mechinterp
