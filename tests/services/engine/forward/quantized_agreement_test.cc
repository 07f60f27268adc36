// Quantized models on the devices' code path: by libtorch alone, and with our kernels for
// Apple's GPU, compiled as C++ (tests/.../metal), in their place. Held against the CPU's
// kernels, which other tests hold against the reference.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "services/engine/operations/generation.h"
#include "services/engine/operations/self_check.h"
#include "services/engine/weights/weights.h"
#include "tests/services/engine/fixture.h"
#include "tests/services/engine/metal/shim_runner.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

struct Case {
  const char* name;
  const char* checkpoint;
  Quantization quantization;
  Quantization head;
};

class QuantizedAgreement : public testing::TestWithParam<Case> {
 protected:
  std::shared_ptr<const Model> Load(const Device& device, metal::KernelRunner* runner, NumberFormat compute) {
    LoadOptions options;
    options.device = device;
    options.kernel_runner = runner;
    options.quantization = GetParam().quantization;
    options.head = GetParam().head;
    options.compute_type = compute;
    return *Model::Load(TestData(GetParam().checkpoint), options);
  }

  static HostTensor Logits(const std::shared_ptr<const Model>& model, int length,
                           std::shared_ptr<const HookPlan> plan = nullptr) {
    Segment segment;
    segment.plan = std::move(plan);
    for (int i = 0; i < length; ++i) segment.tokens.push_back((7 * i + 3) % model->config().vocabulary_size);
    segment.logits_rows = LogitsRows::kAll;
    Segment* const segments[] = {&segment};
    EXPECT_THAT(RunPass(*model, segments), IsOk());
    EXPECT_THAT(segment.logits_status, IsOk());
    return std::move(segment.logits);
  }

  static constexpr Device kByLibtorch = {DeviceKind::kCpu, true};
};

// Short prompts go through the kernels for few rows, long ones through dequantized panels.
TEST_P(QuantizedAgreement, LogitsByLibtorchAndByTheKernelsForApplesGpu) {
  metal::ShimRunner runner;
  const auto cpu = Load({}, nullptr, NumberFormat::kFloat32);
  const auto aten = Load(kByLibtorch, nullptr, NumberFormat::kFloat32);
  const auto metal = Load(kByLibtorch, &runner, NumberFormat::kFloat32);
  const bool uses_kernels = GetParam().quantization == NumberFormat::kNf4 || GetParam().head != kUnquantized;
  for (int length : {1, 5, 33}) {
    const HostTensor expected = Logits(cpu, length);
    EXPECT_LT(MaxDifference(Logits(aten, length), expected), 1e-4) << length;
    const int before = runner.launches;
    EXPECT_LT(MaxDifference(Logits(metal, length), expected), 1e-4) << length;
    EXPECT_EQ(runner.launches > before, uses_kernels);
  }
}

// As a Mac computes: operands and products in fp16, sums in fp32. Few rows: libtorch 1.13
// multiplies no fp16 on the CPU.
TEST_P(QuantizedAgreement, HalfPrecisionIsCloseToTheCpusKernels) {
  if (GetParam().head == kUnquantized || GetParam().quantization == kUnquantized) {
    GTEST_SKIP() << "not all products are quantized";
  }
  metal::ShimRunner runner;
  const HostTensor expected = Logits(Load({}, nullptr, NumberFormat::kFloat16), 5);
  const HostTensor actual = Logits(Load(kByLibtorch, &runner, NumberFormat::kFloat16), 5);
  double largest = 0;
  for (float logit : expected.values) largest = std::max<double>(largest, std::abs(logit));
  EXPECT_LT(MaxDifference(actual, expected), 1e-2 * largest);
  EXPECT_GT(MaxDifference(actual, expected), 0);  // fp16 does show
}

// Llama models have neurons beyond fp16's range.
TEST_P(QuantizedAgreement, HalfPrecisionHoldsWhatOnlyFp32Can) {
  constexpr int kLength = 5;
  for (const float size : {9.6e4f, 1e9f, 1e30f}) {
    CompiledEdit edit;
    edit.site = {HookPoint::kMlpPost, 1};
    edit.positions = {2};
    edit.heads = {0};
    edit.dims = {3};
    edit.change = SetValues{{{{1, 1, 1}, {size}}}};
    auto plan = std::make_shared<HookPlan>();
    plan->prompt_length = kLength;
    plan->edits[edit.site] = {edit};
    const HostTensor expected = Logits(Load({}, nullptr, NumberFormat::kFloat32), kLength, plan);
    double largest = 0;
    for (float logit : expected.values) largest = std::max<double>(largest, std::abs(logit));
    EXPECT_LT(MaxDifference(Logits(Load({}, nullptr, NumberFormat::kFloat16), kLength, plan), expected),
              2e-2 * largest)
        << size;
    if (GetParam().head == kUnquantized || GetParam().quantization == kUnquantized) continue;
    metal::ShimRunner runner;
    EXPECT_LT(
        MaxDifference(Logits(Load(kByLibtorch, &runner, NumberFormat::kFloat16), kLength, plan), expected),
        2e-2 * largest)
        << size;
  }
}

TEST_P(QuantizedAgreement, TheSelfCheckPassesInBFloat16) {
  metal::ShimRunner runner;
  const auto model = Load(kByLibtorch, &runner, NumberFormat::kBFloat16);
  DirectExecutor executor(model);
  RunContext context{executor, {}, {}};
  const absl::StatusOr<SelfCheck> check = CheckDevice(context);
  ASSERT_THAT(check, IsOk());
  EXPECT_TRUE(check->passed) << check->problem;
  EXPECT_GT(check->layers[0].relative_error, 1e-5);  // bf16 does show
  EXPECT_LT(check->layers[0].relative_error, check->tolerance / 2);
}

// What the memory limit goes by is what is then held, on the device as on the CPU.
TEST_P(QuantizedAgreement, WeightsTakeTheMemoryThatWasEstimated) {
  const auto checkpoint = Checkpoint::Open(TestData(GetParam().checkpoint));
  ASSERT_THAT(checkpoint, IsOk());
  const auto aten = Load(kByLibtorch, nullptr, NumberFormat::kFloat32);
  for (const auto& [format, bytes] : EstimateWeightBytes(*checkpoint, aten->formats())) {
    // Estimates are of whole panels.
    EXPECT_LE(aten->weight_bytes().at(format), bytes);
    EXPECT_GT(aten->weight_bytes().at(format), bytes / 2);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Weights, QuantizedAgreement,
    testing::Values(Case{"StoredNf4", "llama3-gqa-bnb-nf4", NumberFormat::kNf4, kUnquantized},
                    Case{"Nf4WithInt8Head", "llama3-gqa", NumberFormat::kNf4, NumberFormat::kInt8},
                    Case{"StoredNf4Dequantized", "llama3-gqa-bnb-nf4", kUnquantized, NumberFormat::kInt8},
                    Case{"Nf4", "llama3-gqa", NumberFormat::kNf4, NumberFormat::kNf4},
                    Case{"Qwen2Nf4", "qwen2", NumberFormat::kNf4, NumberFormat::kInt8},
                    Case{"Qwen3Nf4", "qwen3", NumberFormat::kNf4, NumberFormat::kInt8}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mechinterp::engine
