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
