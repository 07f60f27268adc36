// Everything that libtorch is asked to compute on a device other than the CPU, recorded
// on CPU tensors and held against what MPS has and does right.

#include "tests/services/engine/forward/op_audit.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/engine/device/transfer.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/patch_run.h"
#include "services/engine/operations/self_check.h"
#include "services/engine/operations/sweep.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

// A tensor of one value, of the size that an edit at this site takes.
HostTensor Vector(int64_t width, float value) { return {{width}, std::vector<float>(width, value)}; }

// How the weights are held: all that products on a device are made from.
struct Weights {
  const char* name;
  Quantization quantization;
  Quantization head;
};

class OpAuditTest : public testing::TestWithParam<Weights> {
 protected:
  static std::shared_ptr<const Model> Load(const Weights& weights) {
    LoadOptions options;
    options.device.by_libtorch = true;
    options.quantization = weights.quantization;
    options.head = weights.head;
    return *Model::Load(TestData("llama3-gqa"), options);
  }

  std::vector<std::shared_ptr<const HookPlan>> Plans(const std::vector<InterventionSet>& sets,
                                                     const CaptureRequest& capture = {}) {
    Violations violations;
    PlanCompiler compiler(model_->config());
    for (const InterventionSet& set : sets) compiler.Add(prompt_, set, capture, violations.root());
    for (const Violation& violation : violations.list()) {
      ADD_FAILURE() << violation.field << ": " << violation.description;
    }
    return *RunSourcesAndFinish(context_, compiler);
  }

  // Every kind of edit at a site.
  std::vector<InterventionSet> EveryEdit(const HookSite& site) {
    const SiteShape shape = ShapeOf(site.point, model_->config());
    const int64_t width = shape.width == kWidthIsKeys ? prompt_.length() : shape.width;
    const ActivationSource source{other_, {}, {}, {}};
    std::vector<Edit> edits = {Replacement{source},
                               MeanReplacement{{source}, MeanAxis::kSourcesAndPositions},
                               Resampling{{source}, 7},
                               Addition{Vector(width, 0.5f), 2},
                               Scaling{0.5},
                               NoiseAddition{0.1, 3}};
    // A norm's scale of zero leaves no finite logits, nor does a projection of masked scores.
    if (width > 1) edits.push_back(Zeroing{});
    if (width > 1 && site.point != HookPoint::kAttnScores) {
      edits.push_back(ProjectionRemoval{Vector(width, 1.0f)});
    }
    if (site.point == HookPoint::kQInput || site.point == HookPoint::kMlpIn) {
      edits.push_back(PathPatch{{HookPoint::kEmbed, 0}, std::nullopt, source});
    }
    std::vector<InterventionSet> sets;
    for (Edit& edit : edits) {
      Intervention intervention;
      intervention.site = site;
      intervention.edit = std::move(edit);
      if (IsOverKeys(site.point)) intervention.selector.scope = InterventionScope::kPrompt;
      sets.push_back({std::move(intervention)});
    }
    return sets;
  }

  std::shared_ptr<const Model> model_ = Load(GetParam());
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
  const TokenizedPrompt prompt_{{1, 5, 9, 2, 7}, {}};
  const TokenizedPrompt other_{{3, 8, 4, 6, 2}, {}};
};

TEST_P(OpAuditTest, GenerationAndCapturesOfEverySite) {
  OpAudit audit;
  const std::vector<HookSite> sites = AllSites(model_->config());
  ASSERT_THAT(RunWithCache(context_, prompt_, Plans({{}}, {sites, {}})[0]), IsOk());
  const PrefillRequest requests[] = {{prompt_, nullptr}, {other_, nullptr}};
  auto prefilled = Prefill(context_, requests);
  ASSERT_THAT(prefilled, IsOk());
  SamplingOptions options;
  options.max_new_tokens = 4;
  options.ignore_stop_tokens = true;
  ASSERT_THAT(Continue(context_, prefilled->front(), options, nullptr), IsOk());
  EXPECT_THAT(audit.violations(), IsEmpty());
  // It did watch.
  EXPECT_THAT(audit.operations(), Contains("bmm"));
  EXPECT_THAT(audit.operations(), Contains("linear"));
}

TEST_P(OpAuditTest, EveryEditAtEveryHookPointInPatchedRunsAndSweeps) {
  MetricOptions metrics;
  metrics.refusal_openings = {{1, 2, 3}};
  metrics.compliance_openings = {{4, 5}};
  std::set<HookPoint> points;
  for (const HookSite& site : AllSites(model_->config())) {
    if (site.layer > 0) continue;  // the same operations as in layer 0
    points.insert(site.point);
    const std::vector<InterventionSet> sets = EveryEdit(site);
    OpAudit audit;
    const auto plans = Plans(sets);
    const SweepSink sink{[](const SweepBaselines&) { return absl::OkStatus(); },
                         [](const SweepResult&) { return absl::OkStatus(); }};
    const auto swept = RunPatchSweep(context_, {prompt_, plans, metrics, other_}, sink);
    ASSERT_THAT(swept, IsOk()) << SiteName(site);
    SamplingOptions continuation;
    continuation.max_new_tokens = 2;
    for (const auto& plan : plans) {
      const auto patched = RunWithPatch(context_, prompt_, plan, metrics, continuation);
      ASSERT_THAT(patched, IsOk()) << SiteName(site);
    }
    EXPECT_THAT(audit.violations(), IsEmpty()) << SiteName(site);
  }
  EXPECT_EQ(points.size(), AllHookPoints().size());
}

// The way back from runs with every edit, by every rule, of every gradient.
TEST_P(OpAuditTest, Gradients) {
  const std::vector<HookSite> sites = AllSites(model_->config());
  const auto run_back = [&](const std::shared_ptr<const HookPlan>& plan, std::vector<BackwardRun> runs) {
    auto gradient = std::make_shared<GradientPlan>();
    gradient->metric = [](absl::Span<const float>, absl::Span<float> ones) {
      std::fill(ones.begin(), ones.end(), 1.0f);
    };
    gradient->runs = std::move(runs);
    gradient->keeps_all_layers = false;
    for (const HookSite& wanted : sites) gradient->captures[wanted] = {wanted, {0, 3, 4}};
    Segment segment;
    segment.tokens = prompt_.ids;
    segment.plan = plan;
    segment.gradient = gradient;
    Segment* const segments[] = {&segment};
    return context_.Run(segments);
  };
  for (const HookSite& site : sites) {
    if (site.layer > 0) continue;
    OpAudit audit;
    for (const auto& plan : Plans(EveryEdit(site))) {
      ASSERT_THAT(run_back(plan, {{BackwardRule::kGradient, -1}, {BackwardRule::kRelevance, 1}}), IsOk())
          << SiteName(site);
      ASSERT_THAT(run_back(plan, {{BackwardRule::kDirect, -1}}), IsOk()) << SiteName(site);
    }
    EXPECT_THAT(audit.violations(), IsEmpty()) << SiteName(site);
  }
}

TEST_P(OpAuditTest, TheSelfCheck) {
  OpAudit audit;
  ASSERT_THAT(CheckDevice(context_), IsOk());
  EXPECT_THAT(audit.violations(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Weights, OpAuditTest,
                         testing::Values(Weights{"Plain", kUnquantized, kUnquantized},
                                         Weights{"Nf4WithInt8Head", NumberFormat::kNf4, NumberFormat::kInt8},
                                         Weights{"Nf4", NumberFormat::kNf4, NumberFormat::kNf4}),
                         [](const auto& info) { return info.param.name; });

// What the audit must not let through.
TEST(PlantedViolations, AnOperationWithoutAKernel) {
  at::Tensor rows = at::zeros({4, 2});
  OpAudit audit;
  at::kthvalue(rows, 1);
  EXPECT_THAT(audit.violations(), Contains(HasSubstr("kthvalue.values: has no kernel on MPS in 2.6")));
}

TEST(PlantedViolations, IndexCopy) {
  at::Tensor rows = at::zeros({4, 2});
  const at::Tensor index = at::zeros({1}, at::kLong), row = at::ones({1, 2});
  OpAudit audit;
  rows.index_copy_(0, index, row);
  EXPECT_THAT(audit.violations(), Contains("index_copy_: has no kernel on MPS in 2.6"));
  EXPECT_THAT(audit.violations(), Contains("index_copy_: is of int64"));
}

TEST(PlantedViolations, Float64) {
  const at::Tensor values = at::zeros({4});
  OpAudit audit;
  values.to(at::kDouble);
  EXPECT_THAT(audit.violations(), Contains(HasSubstr("is of float64")));
}

TEST(PlantedViolations, ATransposedOperand) {
  const at::Tensor a = at::ones({2, 3, 4}), b = at::ones({2, 3, 4});
  OpAudit audit;
  at::bmm(a, b.transpose(1, 2));
  EXPECT_THAT(audit.violations(), Contains("bmm: has an operand that is not contiguous"));
}

TEST(PlantedViolations, AHeadInOnePiece) {
  const at::Tensor x = at::ones({1, 2}), w = at::ones({40000, 2});
  OpAudit audit;
  at::linear(x, w);
  EXPECT_THAT(audit.violations(), Contains("linear: has an operand with a side of 40000"));
}

TEST(PlantedViolations, WhatIsAllowedIsNoViolation) {
  const at::Tensor a = at::ones({2, 3, 4}), b = at::ones({2, 4, 3});
  OpAudit audit;
  at::softmax(at::bmm(a, b), 2);
  EXPECT_THAT(audit.violations(), IsEmpty());
  EXPECT_THAT(audit.operations(), Contains("_softmax"));
}

// What RecordFunction cannot see on the CPU is refused where it would be done.
TEST(Transfers, RefuseStridedAndConvertingCopies) {
  const at::Tensor square = at::ones({3, 3});
  EXPECT_THROW(ToHost(square.t()), c10::Error);
  EXPECT_THROW(ToHost(square.to(at::kHalf)), c10::Error);
  EXPECT_THROW(Overwrite(square.t(), square), c10::Error);
  EXPECT_THROW(Overwrite(square, square.to(at::kDouble)), c10::Error);
  EXPECT_THROW(ToDevice(square.t(), at::kCPU), c10::Error);
}

TEST(Transfers, GiveMemoryOfTheirOwn) {
  const at::Tensor there = at::ones({2});
  ToHost(there).zero_();
  EXPECT_EQ(there.data_ptr<float>()[0], 1);
}

}  // namespace
}  // namespace mechinterp::engine
