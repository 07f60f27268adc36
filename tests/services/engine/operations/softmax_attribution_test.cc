#include "services/engine/operations/softmax_attribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "services/engine/operations/attribution.h"
#include "services/engine/operations/cached_run.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

// The softmax computed anew, against runs in which hook_q or hook_k is replaced, aligned from the end, and
// the pattern recorded.
class ExactSoftmaxTest : public testing::TestWithParam<const char*> {
 protected:
  static std::vector<TokenId> Ids(int count, int factor) {
    std::vector<TokenId> ids;
    for (int i = 0; i < count; ++i) ids.push_back((factor * i + 3) % 128);
    return ids;
  }

  static std::vector<int> AllOf(const TokenizedPrompt& prompt) {
    std::vector<int> positions;
    for (int i = 0; i < prompt.length(); ++i) positions.push_back(i);
    return positions;
  }

  HostTensor PatternGradient() {
    Segment segment;
    segment.tokens = request_.clean.ids;
    segment.logits_rows = LogitsRows::kLast;
    auto back = std::make_shared<GradientPlan>();
    const DifferentiableMetric metric = MakeMetric(request_.metric, request_.tokens, nullptr);
    back->metric = metric.gradient;
    back->runs = {{}};
    back->captures[pattern_] = {pattern_, AllOf(request_.clean)};
    segment.gradient = back;
    Segment* const one[] = {&segment};
    EXPECT_THAT(context_.Run(one), IsOk());
    return segment.gradients[0].at(pattern_).values;
  }

  HostTensor PatternWith(const InterventionSet& interventions) {
    PlanCompiler compiler(model_->config());
    Violations violations;
    compiler.Add(request_.clean, interventions, {{pattern_}, {}}, violations.root());
    EXPECT_TRUE(violations.empty());
    const auto plans = RunSourcesAndFinish(context_, compiler);
    EXPECT_THAT(plans, IsOk());
    const auto run = RunWithCache(context_, request_.clean, plans->front());
    EXPECT_THAT(run, IsOk());
    return (*run)->activations.at(pattern_).values;
  }

  double Expected(HookPoint point, int position, int head) {
    Replacement replacement;
    replacement.source.origin = request_.source;
    replacement.source.alignment = PositionAlignment::kEnd;
    Intervention intervention{{point, pattern_.layer}, {}, replacement};
    intervention.selector.heads = {head};
    intervention.selector.positions.indices = {position - request_.clean.length()};
    const HostTensor before = PatternWith({}), after = PatternWith({intervention});
    const HostTensor gradient = PatternGradient();
    double sum = 0;
    for (size_t i = 0; i < before.values.size(); ++i) {
      sum += (double{after.values[i]} - before.values[i]) * gradient.values[i];
    }
    return sum;
  }

  void Check(int length, int source_length) {
    request_.clean.ids = Ids(length, 7);
    request_.source.ids = Ids(source_length, 5);
    request_.tokens.refusal_token_ids = {5, 9};
    request_.tokens.compliance_token_ids = {20, 31};
    request_.exact_softmax = true;
    request_.sites = {{HookPoint::kQ, pattern_.layer}, {HookPoint::kK, pattern_.layer}};
    const auto attribution = Attribute(context_, request_);
    ASSERT_THAT(attribution, IsOk());
    for (const HookSite& site : request_.sites) {
      const HostTensor& scores = attribution->scores.at(site);
      const auto heads = static_cast<int>(scores.shape[1]);
      double largest = 0;
      for (const float score : scores.values) largest = std::max<double>(largest, std::abs(score));
      ASSERT_GT(largest, 1e-6);
      for (const int position : {length - 1, length - 2, length - 4}) {
        for (const int head : {0, heads - 1}) {
          EXPECT_NEAR(scores.values[position * heads + head], Expected(site.point, position, head),
                      2e-3 * largest)
              << SiteName(site) << " position " << position << " head " << head;
        }
      }
    }
  }

  static std::shared_ptr<const Model> LoadModel() {
    LoadOptions options;
    options.compute_type = NumberFormat::kFloat32;
    options.head = kUnquantized;
    return *Model::Load(TestData(GetParam()), options);
  }

  const HookSite pattern_{HookPoint::kPattern, 1};
  std::shared_ptr<const Model> model_ = LoadModel();
  AttributionRequest request_;
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
};

TEST_P(ExactSoftmaxTest, OfPromptsOfOneLength) { Check(12, 12); }
TEST_P(ExactSoftmaxTest, OfALongerSource) { Check(12, 27); }
TEST_P(ExactSoftmaxTest, OfAShorterSource) { Check(27, 9); }

INSTANTIATE_TEST_SUITE_P(Fixtures, ExactSoftmaxTest,
                         testing::Values("llama3-gqa", "rope-dynamic", "rope-yarn-mscale", "qwen3",
                                         "mistral-window"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace mechinterp::engine
