// Receivers' inputs: what an edit of one head's input, or of the MLP's, changes, and what it
// leaves as it was, bit for bit. What the changed values are is held by engine_naive_agreement_test.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "services/engine/forward/executor.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

constexpr int kLength = 6, kLayer = 1, kPosition = 2;

class ReceiverInputs : public testing::TestWithParam<Device> {
 protected:
  // A run's activations at every site, with one edit or none.
  std::map<HookSite, RecordedActivation> Run(std::optional<CompiledEdit> edit = std::nullopt) {
    auto plan = std::make_shared<HookPlan>();
    plan->prompt_length = kLength;
    std::vector<int> positions(kLength);
    std::iota(positions.begin(), positions.end(), 0);
    for (const HookSite& site : AllSites(model_->config())) plan->captures[site] = {site, positions};
    if (edit) plan->edits[edit->site] = {*edit};
    Segment segment;
    for (int i = 0; i < kLength; ++i) segment.tokens.push_back(11 * i + 5);
    segment.plan = std::move(plan);
    Segment* const segments[] = {&segment};
    EXPECT_THAT(context_.Run(segments), IsOk());
    return std::move(segment.activations);
  }

  static CompiledEdit Doubling(HookPoint point, int head) {
    CompiledEdit edit;
    edit.site = {point, kLayer};
    edit.positions = {kPosition};
    edit.heads = {head};
    edit.dims = {0, 3};
    edit.change = Multiply{2};
    return edit;
  }

  std::shared_ptr<const Model> model_ = [] {
    LoadOptions options;
    options.device = GetParam();
    return *Model::Load(TestData("llama3-gqa"), options);
  }();
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
};

// Of an activation [T, heads, width], whether each (position, head) differs.
std::vector<std::pair<int, int>> Changed(const RecordedActivation& a, const RecordedActivation& b) {
  std::vector<std::pair<int, int>> changed;
  const int64_t heads = a.values.shape[1], width = a.values.shape[2];
  for (int64_t p = 0; p < a.values.shape[0]; ++p) {
    for (int64_t h = 0; h < heads; ++h) {
      const auto begin = a.values.values.begin() + (p * heads + h) * width;
      if (!std::equal(begin, begin + width, b.values.values.begin() + (p * heads + h) * width)) {
        changed.emplace_back(p, h);
      }
    }
  }
  return changed;
}

TEST_P(ReceiverInputs, AreTheStreamForEachHead) {
  const auto run = Run();
  const std::vector<float>& stream = run.at({HookPoint::kResidPre, kLayer}).values.values;
  const int d = model_->config().d_model;
  for (const HookPoint point : {HookPoint::kQInput, HookPoint::kKInput, HookPoint::kVInput}) {
    const HostTensor& input = run.at({point, kLayer}).values;
    const int64_t heads = input.shape[1];
    ASSERT_EQ(input.shape, (std::vector<int64_t>{kLength, ShapeOf(point, model_->config()).heads, d}));
    for (int64_t row = 0; row < kLength * heads; ++row) {
      const auto begin = input.values.begin() + row * d;
      EXPECT_TRUE(std::equal(begin, begin + d, stream.begin() + row / heads * d));
    }
  }
  EXPECT_EQ(run.at({HookPoint::kMlpIn, kLayer}).values.values,
            run.at({HookPoint::kResidMid, kLayer}).values.values);
}

TEST_P(ReceiverInputs, OfAHeadChangeThatHeadAlone) {
  const auto clean = Run();
  const struct {
    HookPoint input, output;
    int head;
  } cases[] = {{HookPoint::kQInput, HookPoint::kQ, 5},
               {HookPoint::kKInput, HookPoint::kK, 1},
               {HookPoint::kVInput, HookPoint::kV, 0}};
  for (const auto& [input, output, head] : cases) {
    const auto run = Run(Doubling(input, head));
    for (const HookPoint point :
         {HookPoint::kResidPre, HookPoint::kQInput, HookPoint::kKInput, HookPoint::kVInput,
          HookPoint::kLn1Scale, HookPoint::kLn1Normalized, HookPoint::kQ, HookPoint::kK, HookPoint::kV}) {
      const auto changed = Changed(clean.at({point, kLayer}), run.at({point, kLayer}));
      if (point == input || point == output) {
        EXPECT_EQ(changed, (std::vector<std::pair<int, int>>{{kPosition, head}}))
            << SiteName({point, kLayer});
      } else {
        EXPECT_TRUE(changed.empty()) << SiteName({point, kLayer});
      }
    }
    EXPECT_FALSE(Changed(clean.at({HookPoint::kLogits, 0}), run.at({HookPoint::kLogits, 0})).empty());
  }
}

TEST_P(ReceiverInputs, OfTheMlpLeaveTheStreamAlone) {
  const auto clean = Run(), run = Run(Doubling(HookPoint::kMlpIn, 0));
  EXPECT_TRUE(
      Changed(clean.at({HookPoint::kResidMid, kLayer}), run.at({HookPoint::kResidMid, kLayer})).empty());
  for (const HookPoint point : {HookPoint::kLn2Normalized, HookPoint::kMlpOut, HookPoint::kResidPost}) {
    EXPECT_EQ(Changed(clean.at({point, kLayer}), run.at({point, kLayer})),
              (std::vector<std::pair<int, int>>{{kPosition, 0}}));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ReceiverInputs, testing::Values(Device{}, Device{DeviceKind::kCpu, true}),
                         [](const auto& info) { return info.index == 0 ? "Kernels" : "Libtorch"; });

}  // namespace
}  // namespace mechinterp::engine
