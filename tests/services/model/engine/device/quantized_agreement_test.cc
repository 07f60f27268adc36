// Quantized models on the devices' code path: by libtorch alone, and with our kernels for
// Apple's GPU, compiled as C++ (tests/.../metal), in their place. Held against the CPU's
// kernels, which other tests hold against the reference.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/model/engine/generation.h"
#include "services/model/engine/self_check.h"
#include "tests/services/model/engine/fixture.h"
#include "tests/services/model/engine/metal/shim_runner.h"

namespace mechinterp::engine {
namespace {

struct Case {
  const char* name;
  const char* checkpoint;
  Quantization quantization;
  HeadQuantization head;
};

class QuantizedAgreement : public testing::TestWithParam<Case> {
 protected:
  std::shared_ptr<const Model> Load(const Device& device, metal::KernelRunner* runner, ComputeType compute) {
    LoadOptions options;
    options.device = device;
    options.kernel_runner = runner;
    options.quantization = GetParam().quantization;
    options.head = GetParam().head;
    options.compute_type = compute;
    return *Model::Load(TestData(GetParam().checkpoint), options);
  }

  static HostTensor Logits(const std::shared_ptr<const Model>& model, int length) {
    Segment segment;
    for (int i = 0; i < length; ++i) segment.tokens.push_back((7 * i + 3) % model->config().vocabulary_size);
    segment.logits_rows = LogitsRows::kAll;
    Segment* const segments[] = {&segment};
    EXPECT_TRUE(Forward(*model, segments).ok());
    return std::move(segment.logits);
  }

  static constexpr Device kByLibtorch = {DeviceKind::kCpu, true};
};

// Short prompts go through the kernels for few rows, long ones through dequantized panels.
TEST_P(QuantizedAgreement, LogitsByLibtorchAndByTheKernelsForApplesGpu) {
  metal::ShimRunner runner;
  const auto cpu = Load({}, nullptr, ComputeType::kFloat32);
  const auto aten = Load(kByLibtorch, nullptr, ComputeType::kFloat32);
  const auto metal = Load(kByLibtorch, &runner, ComputeType::kFloat32);
  for (int length : {1, 5, 33}) {
    const HostTensor expected = Logits(cpu, length);
    EXPECT_LT(MaxDifference(Logits(aten, length), expected), 1e-4) << length;
    const int before = runner.launches;
    EXPECT_LT(MaxDifference(Logits(metal, length), expected), 1e-4) << length;
    EXPECT_GT(runner.launches, before);
  }
}

// As a Mac computes: operands in fp16, sums in fp32.
TEST_P(QuantizedAgreement, HalfPrecisionKernelsAreWithinTheSelfChecksTolerance) {
  metal::ShimRunner runner;
  if (GetParam().head == HeadQuantization::kNone) {
    GTEST_SKIP() << "libtorch 1.13 multiplies no fp16 on the CPU";
  }
  const auto model = Load(kByLibtorch, &runner, ComputeType::kFloat16);
  DirectExecutor executor(model);
  RunContext context{executor, {}, {}};
  const absl::StatusOr<SelfCheck> check = CheckDevice(context);
  ASSERT_TRUE(check.ok()) << check.status();
  EXPECT_TRUE(check->passed) << check->problem;
  // Not by luck: fp16 does show.
  EXPECT_GT(check->layers[0].relative_error, 1e-6);
  EXPECT_LT(check->layers[0].relative_error, check->tolerance / 2);
}

TEST_P(QuantizedAgreement, WeightsTakeAsMuchMemoryAsOnTheCpu) {
  if (GetParam().head == HeadQuantization::kNone) {
    GTEST_SKIP() << "the CPU keeps bf16 as it is, libtorch wants both operands of one type";
  }
  const auto cpu = Load({}, nullptr, ComputeType::kFloat32);
  const auto aten = Load(kByLibtorch, nullptr, ComputeType::kFloat32);
  // The CPU's are padded to whole panels.
  EXPECT_LE(aten->total_weight_bytes(), cpu->total_weight_bytes());
  EXPECT_GT(aten->total_weight_bytes(), cpu->total_weight_bytes() / 2);
}

INSTANTIATE_TEST_SUITE_P(
    Weights, QuantizedAgreement,
    testing::Values(Case{"StoredNf4", "llama3-gqa-bnb-nf4", Quantization::kNf4, HeadQuantization::kNone},
                    Case{"Nf4WithInt8Head", "llama3-gqa", Quantization::kNf4, HeadQuantization::kInt8},
                    Case{"Nf4", "llama3-gqa", Quantization::kNf4, HeadQuantization::kNf4}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mechinterp::engine
