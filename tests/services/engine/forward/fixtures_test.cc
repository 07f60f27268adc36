// The engine against the reference implementation's numbers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/generation.h"
#include "services/engine/weights/weights.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

constexpr double kTolerance = 1e-4;

class FixtureTest : public testing::TestWithParam<const char*> {
 protected:
  // Compiles and runs one prompt with interventions.
  std::shared_ptr<const HookPlan> Plan(const TokenizedPrompt& prompt, const InterventionSet& interventions,
                                       const std::vector<HookSite>& captures) {
    Violations list;
    PlanCompiler compiler(fixture_.model()->config());
    compiler.Add(prompt, interventions, {captures, {}}, list.root());
    for (const Violation& violation : list.list())
      ADD_FAILURE() << violation.field << ": " << violation.description;
    return RunSourcesAndFinish(context_, compiler)->front();
  }

  Fixture fixture_{GetParam()};
  DirectExecutor executor_{fixture_.model()};
  RunContext context_{executor_, {}, {}};
};

TEST_P(FixtureTest, EveryActivationOfTheCleanRuns) {
  const ModelConfig& config = fixture_.model()->config();
  int compared = 0;
  for (const char* name : {"a", "b", "c"}) {
    const TokenizedPrompt prompt = fixture_.prompt(name);
    const auto run = RunWithCache(context_, prompt, Plan(prompt, {}, AllSites(config)));
    ASSERT_THAT(run, IsOk());
    for (const auto& [site, recorded] : (*run)->activations) {
      const std::string key = std::string(name) + "/" + SiteName(site);
      if (fixture_.expected_file().Find(key) == nullptr) continue;
      HostTensor ours = ToPublicShape(site.point, config, recorded);
      if (site.point == HookPoint::kLnFinalNormalized) {
        // The reference recorded it with the gain applied.
        const float* gain = fixture_.model()->weights().ln_final_gain.data_ptr<float>();
        for (size_t i = 0; i < ours.values.size(); ++i) ours.values[i] *= gain[i % config.d_model];
      }
      EXPECT_LT(MaxDifference(ours, fixture_.expected(key)), kTolerance) << key;
      ++compared;
    }
  }
  // Every value that the reference recorded of these prompts was held against ours.
  int recorded = 0;
  for (const auto& [name, view] : fixture_.expected_file().tensors()) {
    recorded += name.size() > 2 && name[1] == '/' && name[0] >= 'a' && name[0] <= 'c';
  }
  EXPECT_EQ(compared, recorded);
  EXPECT_GT(compared, 50);
}

TEST_P(FixtureTest, LogitsOfEveryPatchedCase) {
  const HookSite logits{HookPoint::kLogits, 0};
  for (const Fixture::Case& test_case : fixture_.cases()) {
    const auto run =
        RunWithCache(context_, test_case.prompt, Plan(test_case.prompt, test_case.interventions, {logits}));
    ASSERT_THAT(run, IsOk());
    const HostTensor ours =
        ToPublicShape(logits.point, fixture_.model()->config(), (*run)->activations.at(logits));
    EXPECT_LT(MaxDifference(ours, fixture_.expected("case/" + test_case.name + "/logits")), kTolerance)
        << test_case.name;
  }
}

TEST_P(FixtureTest, GreedyContinuationsTokenForToken) {
  int compared = 0;
  for (const Fixture::Case& test_case : fixture_.cases()) {
    if (!test_case.greedy) continue;
    const PrefillRequest request{test_case.prompt, Plan(test_case.prompt, test_case.interventions, {})};
    auto prefilled = Prefill(context_, {request});
    ASSERT_THAT(prefilled, IsOk());
    SamplingOptions options;
    options.max_new_tokens = static_cast<int>(test_case.greedy->size());
    options.ignore_stop_tokens = true;
    const auto generation = Continue(context_, prefilled->front(), options, nullptr);
    ASSERT_THAT(generation, IsOk());
    EXPECT_EQ(generation->ids, *test_case.greedy) << test_case.name;
    ++compared;
  }
  EXPECT_GE(compared, 5);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, FixtureTest,
                         testing::Values("llama3-gqa", "llama31-rope-scaled", "qwen2", "qwen3",
                                         "llama-biases", "mistral-window", "qwen2-window",
                                         "mistral-window-64", "rope-linear", "rope-dynamic", "rope-yarn",
                                         "rope-yarn-mscale"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace mechinterp::engine
