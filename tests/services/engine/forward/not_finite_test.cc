// Logits that are not finite are an error that says where it began, of the request alone that
// has them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "services/engine/forward/executor.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using testing::HasSubstr;

constexpr int kLength = 5;
constexpr int kLastLayer = 3;

// Two edits by the largest factor there is, at one position.
std::shared_ptr<const HookPlan> Overflow(const HookSite& site, int position) {
  CompiledEdit edit;
  edit.site = site;
  edit.positions = {position};
  edit.heads = {0};
  edit.change = Multiply{3e38f};
  auto plan = std::make_shared<HookPlan>();
  plan->prompt_length = kLength;
  plan->edits[site] = {edit, edit};
  return plan;
}

Segment MakeSegment(std::shared_ptr<const HookPlan> plan) {
  Segment segment;
  for (int i = 0; i < kLength; ++i) segment.tokens.push_back(7 * i + 3);
  segment.logits_rows = LogitsRows::kAll;
  segment.plan = std::move(plan);
  return segment;
}

class NotFiniteLogits : public testing::TestWithParam<Device> {
 protected:
  std::shared_ptr<const Model> model_ = [] {
    LoadOptions options;
    options.device = GetParam();
    return *Model::Load(TestData("llama3-gqa"), options);
  }();
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
};

TEST_P(NotFiniteLogits, AreAnErrorThatSaysWhereItBegan) {
  const std::pair<HookSite, const char*> cases[] = {
      {{HookPoint::kEmbed, 0},
       "at position 2 where blocks.0.ln1.hook_scale reads it: from the embeddings on"},
      {{HookPoint::kAttnOut, 0},
       "at position 2 where blocks.0.ln2.hook_scale reads it: after the attention of layer 0"},
      {{HookPoint::kMlpOut, 1},
       "at position 2 where blocks.2.ln1.hook_scale reads it: after the MLP of layer 1"},
      {{HookPoint::kMlpPost, 2},
       "at position 2 where blocks.3.ln1.hook_scale reads it: after the MLP of layer 2"},
      {{HookPoint::kMlpOut, kLastLayer},
       "at position 2 where ln_final.hook_scale reads it: after the MLP of the last layer"},
      {{HookPoint::kLogits, 0}, "the output head makes them so"},
  };
  ASSERT_EQ(model_->config().layer_count(), kLastLayer + 1);
  for (const auto& [site, origin] : cases) {
    Segment bad = MakeSegment(Overflow(site, 2)), good = MakeSegment(nullptr), alone = MakeSegment(nullptr);
    Segment* const together[] = {&good, &bad};
    const absl::Status status = context_.Run(together);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(origin));
    // Those who share the pass are not touched by it.
    EXPECT_THAT(good.logits_status, IsOk());
    Segment* const segments[] = {&alone};
    ASSERT_THAT(context_.Run(segments), IsOk());
    EXPECT_LT(MaxDifference(good.logits, alone.logits), 1e-5);
  }
}

TEST_P(NotFiniteLogits, OfRowsThatNobodyReadsAreNone) {
  Segment segment = MakeSegment(Overflow({HookPoint::kLogits, 0}, kLength - 2));
  segment.logits_rows = LogitsRows::kLast;
  Segment* const segments[] = {&segment};
  EXPECT_THAT(context_.Run(segments), IsOk());
}

TEST_P(NotFiniteLogits, AreForgottenWhenASegmentIsUsedAgain) {
  Segment segment = MakeSegment(Overflow({HookPoint::kMlpOut, 0}, 0));
  Segment* const segments[] = {&segment};
  EXPECT_FALSE(context_.Run(segments).ok());
  segment.plan = nullptr;
  EXPECT_THAT(context_.Run(segments), IsOk());
}

INSTANTIATE_TEST_SUITE_P(Devices, NotFiniteLogits, testing::Values(Device{}, Device{DeviceKind::kCpu, true}),
                         [](const auto& info) { return info.index == 0 ? "Kernels" : "Libtorch"; });

}  // namespace
}  // namespace mechinterp::engine
