#include "services/engine/interventions/sweep_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace mechinterp::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig Config() {
  ModelConfig config;
  config.layers.resize(3);
  config.head_count = 2;
  config.key_value_head_count = 2;
  config.head_size = 8;
  config.d_model = 16;
  config.d_ff = 24;
  config.vocabulary_size = 32;
  config.context_length = 64;
  return config;
}

class SweepGridTest : public testing::Test {
 protected:
  // Sites as texts: "point.layer position head [begin,end)".
  std::vector<std::string> Sites() {
    expanded_ = ExpandGrid(grid_, config_, prompt_, violations_.root());
    std::vector<std::string> texts;
    for (const SweepSite& site : expanded_.sites) {
      std::string text = SiteName(site.site);
      if (site.position) text += " at " + std::to_string(*site.position);
      if (site.head) text += " head " + std::to_string(*site.head);
      if (site.dim_begin)
        text += " [" + std::to_string(*site.dim_begin) + "," + std::to_string(*site.dim_end) + ")";
      texts.push_back(text);
    }
    return texts;
  }

  ModelConfig config_ = Config();
  TokenizedPrompt prompt_{{1, 2, 3, 4}, {}};
  SweepGrid grid_;
  Violations violations_;
  ExpandedGrid expanded_;
};

TEST_F(SweepGridTest, GroupsAreOfNeighboursWhateverTheOrderOfDims) {
  grid_.points = {HookPoint::kMlpPost};
  grid_.layers = {1};
  grid_.dims_per_group = 2;
  grid_.prototype.selector.dims = {9, 2, 3, 8, 2, 4, 9};
  EXPECT_THAT(Sites(), ElementsAre("blocks.1.mlp.hook_post [2,4)", "blocks.1.mlp.hook_post [4,5)",
                                   "blocks.1.mlp.hook_post [8,10)"));
  ASSERT_EQ(expanded_.sets.size(), 3u);
  EXPECT_THAT(expanded_.sets[0][0].selector.dims, ElementsAre(2, 3));
  EXPECT_THAT(expanded_.sets[1][0].selector.dims, ElementsAre(4));
  EXPECT_THAT(expanded_.sets[2][0].selector.dims, ElementsAre(8, 9));
}

TEST_F(SweepGridTest, EveryPointLayerPositionAndHeadRunsOnce) {
  grid_.points = {HookPoint::kZ, HookPoint::kQ, HookPoint::kZ};
  grid_.layers = {2, 0, 2};
  grid_.split_heads = true;
  grid_.split_positions = true;
  grid_.prototype.selector.heads = {1, 1};
  grid_.prototype.selector.positions.indices = {3, -1, 1};
  EXPECT_THAT(Sites(), ElementsAre("blocks.0.attn.hook_q at 1 head 1", "blocks.0.attn.hook_q at 3 head 1",
                                   "blocks.2.attn.hook_q at 1 head 1", "blocks.2.attn.hook_q at 3 head 1",
                                   "blocks.0.attn.hook_z at 1 head 1", "blocks.0.attn.hook_z at 3 head 1",
                                   "blocks.2.attn.hook_z at 1 head 1", "blocks.2.attn.hook_z at 3 head 1"));
}

// Each set has a copy of the prototype: 10,000 times a list of a million would be too much for anybody.
TEST_F(SweepGridTest, ListsThatRepeatThemselvesTakeNoMoreThanWhatTheyChooseFrom) {
  constexpr int kRepetitions = 1'000'000;
  config_.layers.resize(2500);
  grid_.points = {HookPoint::kZ};
  grid_.split_positions = true;
  for (int i = 0; i < kRepetitions; ++i) {
    grid_.prototype.selector.heads.push_back(i % 2);
    grid_.prototype.selector.dims.push_back(7 - i % 8);
    grid_.prototype.selector.positions.indices.push_back(i % 4);
  }
  // A set and its plan, and two lists of ten numbers for each; see ExpandedGridBytes.
  EXPECT_LE(ExpandedGridBytes(grid_, config_, prompt_), 10'000 * (1536 + 2 * 10 * 4));
  EXPECT_EQ(Sites().size(), 10'000u);
  EXPECT_THAT(expanded_.sets[0][0].selector.heads, ElementsAre(0, 1));
  EXPECT_THAT(expanded_.sets[0][0].selector.dims, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(expanded_.sets[9][0].selector.positions.indices, ElementsAre(1));
}

// What is outside is still there for the compiler to name.
TEST_F(SweepGridTest, OfDimsThatNoSiteHasOneIsKept) {
  grid_.points = {HookPoint::kMlpPost};
  grid_.layers = {0};
  for (int dim = 100; dim < 1'000'000; ++dim) grid_.prototype.selector.dims.push_back(dim);
  grid_.prototype.selector.dims.push_back(5);
  EXPECT_EQ(Sites().size(), 1u);
  EXPECT_THAT(expanded_.sets[0][0].selector.dims, ElementsAre(5, 999'999));
}

TEST_F(SweepGridTest, ASelectorThatIsCopiedIntoEachSetIsCounted) {
  grid_.points = {HookPoint::kMlpPost};
  const int64_t plain = ExpandedGridBytes(grid_, config_, prompt_);
  for (int i = 0; i < 1000; ++i) grid_.prototype.selector.positions.ranges.push_back({0, 1 + i % 4});
  // Three sets, each with a copy and a plan of a thousand ranges, of twelve bytes at least.
  EXPECT_GE(ExpandedGridBytes(grid_, config_, prompt_) - plain, 3 * 2 * 1000 * 12);
}

TEST_F(SweepGridTest, AllDimsAreGroupedToTheEnd) {
  grid_.points = {HookPoint::kMlpPost};
  grid_.layers = {0};
  grid_.dims_per_group = 10;
  EXPECT_THAT(Sites(), ElementsAre("blocks.0.mlp.hook_post [0,10)", "blocks.0.mlp.hook_post [10,20)",
                                   "blocks.0.mlp.hook_post [20,24)"));
}

TEST_F(SweepGridTest, EndsWhereItExpandsToTooMany) {
  config_.vocabulary_size = 128'000;
  grid_.points = {HookPoint::kLogits};
  grid_.dims_per_group = 1;
  grid_.split_positions = true;
  prompt_.ids.assign(8000, 1);
  EXPECT_THAT(Sites(), ElementsAre());
  ASSERT_EQ(violations_.count(), 1u);
  EXPECT_THAT(violations_.list()[0].description, HasSubstr("more than 1000000 runs"));
}

}  // namespace
}  // namespace mechinterp::engine
