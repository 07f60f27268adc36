// What operations say they will take, and what their plans and activations then take. Whole
// operations are held against measured peaks in peak_memory_test.cc.

#include <gtest/gtest.h>

#include <tuple>
#include <utility>
#include <variant>

#include "services/engine/forward/kv_cache.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/sweep.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

int64_t Bytes(const RecordedRun& run) {
  int64_t bytes = 0;
  for (const auto& [site, recorded] : run.activations) bytes += recorded.values.size() * sizeof(float);
  return bytes;
}

class MemoryEstimate : public testing::Test {
 protected:
  Fixture fixture_{"llama3-gqa"};
  const ModelConfig& config_ = fixture_.model()->config();
  DirectExecutor executor_{fixture_.model()};
  RunContext context_{executor_, nullptr, absl::ZeroDuration()};
  Violations violations_;
};

TEST_F(MemoryEstimate, ActivationsTakeWhatIsSaid) {
  const TokenizedPrompt prompt = fixture_.prompt("a");
  for (const HookSite& site : AllSites(config_)) {
    PlanCompiler compiler(config_);
    compiler.Add(prompt, {}, {{site}, {}}, violations_.root());
    const auto plans = RunSourcesAndFinish(context_, compiler);
    const auto run = RunWithCache(context_, prompt, plans->front());
    ASSERT_THAT(run, IsOk());
    EXPECT_EQ(Bytes(**run), ActivationBytes(config_, {site}, prompt.length(), prompt.length()))
        << SiteName(site);
  }
}

TEST_F(MemoryEstimate, ThePlansBeforeTheirRunsAreLikeThoseAfter) {
  PlanCompiler compiler(config_);
  for (const Fixture::Case& test_case : fixture_.cases()) {
    compiler.Add(test_case.prompt, test_case.interventions, {}, violations_.root());
  }
  ASSERT_TRUE(violations_.empty());
  const auto plans = RunSourcesAndFinish(context_, compiler);
  ASSERT_THAT(plans, IsOk());
  const std::vector<EntryPoint> entries = compiler.EntryPoints();
  ASSERT_EQ(entries.size(), plans->size());
  int64_t value_bytes = 0;
  for (size_t i = 0; i < plans->size(); ++i) {
    const EntryPoint after = EarliestChange(*(*plans)[i], config_.layer_count());
    EXPECT_EQ(std::tuple(entries[i].layer, entries[i].point, entries[i].position),
              std::tuple(after.layer, after.point, after.position));
    for (const auto& [site, edits] : (*plans)[i]->edits) {
      for (const CompiledEdit& edit : edits) {
        if (const auto* set = std::get_if<SetValues>(&edit.change))
          value_bytes += 4 * set->values.values.size();
        if (const auto* add = std::get_if<AddValues>(&edit.change))
          value_bytes += 4 * add->values.values.size();
      }
    }
  }
  EXPECT_GT(value_bytes, 0);
  EXPECT_GE(compiler.PlanBytes(), value_bytes);
}

// Llama-3-8B: 2 x 32 layers x 8 heads x 128 x 4 bytes a position.
TEST(MemoryEstimateOfLlama3, KeysAndValues) {
  ModelConfig config;
  config.layers.resize(32);
  config.key_value_head_count = 8;
  config.head_size = 128;
  EXPECT_EQ(KeyValueBytes(config, 1), 262144);
  EXPECT_EQ(KeyValueBytes(config, 8192), int64_t{2} << 30);
}

ModelConfig SmallConfig() {
  ModelConfig config;
  config.layers.resize(4);
  config.head_count = config.key_value_head_count = 1;
  config.head_size = config.d_model = 8;
  config.d_ff = 20;
  config.vocabulary_size = 10;
  return config;
}

// A sweep over all layers keeps the entering rows once for each layer but the
// first, however many runs enter there.
TEST(MemoryEstimateOfASweep, GrowsWithLayersNotRuns) {
  const ModelConfig config = SmallConfig();
  std::vector<EntryPoint> entries;
  for (int layer = 0; layer < 4; ++layer) entries.push_back({layer, 7});
  const int64_t once = SweepBytes(config, 10, 0, entries, {}, 4);
  for (int layer = 0; layer < 4; ++layer) entries.push_back({layer, 8});
  EXPECT_EQ(SweepBytes(config, 10, 0, entries, {}, 4), once);
  entries.push_back({4, 5});  // 5 rows after the last layer, in a batch of 2 rows more than the others
  EXPECT_EQ(SweepBytes(config, 10, 0, entries, {}, 4), once + (5 * 8 + 2 * 8) * 4);
}

// What enters within a block starts from that block's branch as well.
TEST(MemoryEstimateOfASweep, KnowsOfEntriesWithinABlock) {
  const ModelConfig config = SmallConfig();
  const int64_t before = SweepBytes(config, 10, 0, {{2, 7}}, {}, 4);
  EXPECT_EQ(SweepBytes(config, 10, 0, {{2, 7, HookPoint::kZ}}, {}, 4), before + (3 + 3) * 8 * 4);
  EXPECT_EQ(SweepBytes(config, 10, 0, {{2, 7, HookPoint::kMlpPost}}, {}, 4), before + (3 + 3) * 20 * 4);
}

}  // namespace
}  // namespace mechinterp::engine
