// What a device can do wrong: a wrong result, no memory, an exception. The first is the
// self-check's to find, the others must become errors that leave the request as it was.

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <new>
#include <stdexcept>

#include "absl/strings/match.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/self_check.h"
#include "services/engine/weights/device_matrix.h"
#include "services/engine/weights/weights.h"
#include "tests/services/engine/fixture.h"
#include "tests/services/engine/metal/shim_runner.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::shared_ptr<const Model> Load(Quantization quantization, metal::KernelRunner* runner) {
  LoadOptions options;
  options.device.by_libtorch = true;
  options.kernel_runner = runner;
  options.quantization = quantization;
  return *Model::Load(TestData("llama3-gqa"), options);
}

SelfCheck Check(const std::shared_ptr<const Model>& model) {
  DirectExecutor executor(model);
  RunContext context{executor, {}, {}};
  absl::StatusOr<SelfCheck> check = CheckDevice(context);
  EXPECT_THAT(check, IsOk());
  return *std::move(check);
}

class WrongResult : public testing::Test {
 protected:
  // The values of a weight on the device, for the test to spoil.
  static const at::Tensor& Values(const LinearWeight& weight) { return weight.device->pieces[0]; }
  const LayerWeights& layer(int i) const { return model_->weights().layers[i]; }

  std::shared_ptr<const Model> model_ = Load(kUnquantized, nullptr);
};

TEST_F(WrongResult, AGoodDevicePasses) {
  const SelfCheck check = Check(model_);
  EXPECT_TRUE(check.passed);
  EXPECT_EQ(check.problem, "");
  EXPECT_LT(check.layers[0].relative_error, 1e-5);
  EXPECT_LT(check.head_relative_error, 1e-5);
  EXPECT_EQ(check.id.size(), 16u);
  EXPECT_EQ(check.id, Check(model_).id);
}

TEST_F(WrongResult, OneLayerIsNamed) {
  const int last = model_->config().layer_count() - 1;
  Values(layer(last).down).narrow(0, 0, 1).mul_(1.5);  // one output of one matrix
  const SelfCheck check = Check(model_);
  EXPECT_FALSE(check.passed);
  EXPECT_THAT(check.problem, StartsWith("layer " + std::to_string(last) + ": relative error "));
  // The layers before are not blamed, nor the head.
  EXPECT_LT(check.layers[0].relative_error, check.tolerance);
  EXPECT_LT(check.head_relative_error, check.tolerance);
}

TEST_F(WrongResult, AttentionIsPartOfIt) {
  Values(layer(0).key).zero_();
  EXPECT_THAT(Check(model_).problem, StartsWith("layer 0: "));
}

TEST_F(WrongResult, TheHeadIsNamed) {
  Values(model_->weights().unembedding).add_(0.01);
  EXPECT_THAT(Check(model_).problem, StartsWith("output head: relative error "));
}

TEST_F(WrongResult, WhatIsNotFiniteDoesNotPass) {
  Values(layer(0).up).fill_(std::numeric_limits<float>::quiet_NaN());
  const SelfCheck check = Check(model_);
  EXPECT_FALSE(check.passed);
  EXPECT_THAT(check.problem, HasSubstr("inf"));
}

// Wrong in one way only: that of long prompts, or that of single rows.
class SpoiltRunner final : public metal::KernelRunner {
 public:
  explicit SpoiltRunner(std::string kernels) : kernels_(std::move(kernels)) {}
  absl::Status Run(const metal::Launch& launch, absl::Span<const at::Tensor> buffers) override {
    const absl::Status status = runner_.Run(launch, buffers);
    if (absl::StrContains(launch.kernel, kernels_)) buffers.back().mul_(1.05);
    return status;
  }

 private:
  const std::string kernels_;
  metal::ShimRunner runner_;
};

TEST(WrongKernel, IsFoundWhicheverWayTheRowsGo) {
  for (const char* kernels : {"nf4_dequantize", "nf4_linear"}) {
    SpoiltRunner runner(kernels);
    EXPECT_THAT(Check(Load(NumberFormat::kNf4, &runner)).problem, StartsWith("layer 0: ")) << kernels;
  }
  SpoiltRunner none("no such kernel");
  EXPECT_TRUE(Check(Load(NumberFormat::kNf4, &none)).passed);
}

// Fails at the launch that is asked for, as the device would.
class FailingRunner final : public metal::KernelRunner {
 public:
  enum class How { kStatus, kThrows, kNoMemory };

  absl::Status Run(const metal::Launch& launch, absl::Span<const at::Tensor> buffers) override {
    if (countdown > 0 && --countdown == 0) {
      switch (how) {
        case How::kStatus:
          return absl::InternalError("command buffer was aborted");
        case How::kThrows:
          TORCH_CHECK(false, "MPS: kernel fault");
        case How::kNoMemory:
          TORCH_CHECK(false, "MPS backend out of memory (MPS allocated: 5.31 GB)");
      }
    }
    return runner_.Run(launch, buffers);
  }

  How how = How::kStatus;
  int countdown = 0;  // launches until one fails; 0: none

 private:
  metal::ShimRunner runner_;
};

class KernelFault : public testing::TestWithParam<FailingRunner::How> {
 protected:
  Segment DecodingStep() {
    Segment segment;
    segment.cache = std::make_shared<KvCache>(model_->config());
    segment.tokens = {1, 5, 9};
    EXPECT_THAT(Run(segment), IsOk());
    segment.first_position = 3;
    segment.tokens = {2};
    segment.logits_rows = LogitsRows::kLast;
    auto plan = std::make_shared<HookPlan>();
    plan->prompt_length = 4;
    for (int layer = 0; layer < model_->config().layer_count(); ++layer) {
      const HookSite site{HookPoint::kResidPre, layer};
      plan->captures[site] = {site, {3}};
    }
    segment.plan = std::move(plan);
    return segment;
  }

  absl::Status Run(Segment& segment) {
    Segment* const segments[] = {&segment};
    return RunPass(*model_, segments);
  }

  FailingRunner runner_;
  std::shared_ptr<const Model> model_ = Load(NumberFormat::kNf4, &runner_);
};

// Wherever in the pass it happens, the segment can be tried again and gives the same.
TEST_P(KernelFault, IsATypedErrorThatLeavesTheSegmentAsItWas) {
  Segment good = DecodingStep();
  ASSERT_THAT(Run(good), IsOk());
  runner_.how = GetParam();
  const absl::StatusCode expected = GetParam() == FailingRunner::How::kNoMemory
                                        ? absl::StatusCode::kResourceExhausted
                                        : absl::StatusCode::kInternal;
  int failures = 0;
  // In every layer, and not always at the same matrix; the shim takes its time.
  const int step = GetParam() == FailingRunner::How::kStatus ? 6 : 13;
  for (int at = 1;; at += step) {
    Segment segment = DecodingStep();
    runner_.countdown = at;
    const absl::Status status = Run(segment);
    if (status.ok()) break;  // the pass has fewer launches
    ++failures;
    EXPECT_EQ(status.code(), expected) << status;
    EXPECT_THAT(std::string(status.message()), StartsWith("forward pass: "));
    for (int layer = 0; layer < model_->config().layer_count(); ++layer) {
      EXPECT_EQ(segment.cache->length(layer), 3);
    }
    runner_.countdown = 0;
    ASSERT_THAT(Run(segment), IsOk());
    EXPECT_EQ(segment.logits.values, good.logits.values);
    for (const auto& [site, recorded] : good.activations) {
      EXPECT_EQ(segment.activations.at(site).values.values, recorded.values.values);
    }
  }
  EXPECT_GE(failures, 2);
  runner_.countdown = 0;
}

INSTANTIATE_TEST_SUITE_P(Ways, KernelFault,
                         testing::Values(FailingRunner::How::kStatus, FailingRunner::How::kThrows,
                                         FailingRunner::How::kNoMemory));

}  // namespace
}  // namespace mechinterp::engine
