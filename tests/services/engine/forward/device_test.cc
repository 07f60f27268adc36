#include "services/engine/device/device.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "services/engine/device/released_tensors.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/weights/device_matrix.h"

namespace mechinterp::engine {
namespace {

using testing::HasSubstr;

TEST(ChooseDevice, TakesTheCpuWhereThereIsNoOther) {
  if (ChooseDevice(DevicePreference::kMps).device.kind == DeviceKind::kMps ||
      ChooseDevice(DevicePreference::kCuda).device.kind == DeviceKind::kCuda) {
    GTEST_SKIP() << "this machine has a GPU";
  }
  const DeviceChoice automatic = ChooseDevice(DevicePreference::kAuto);
  EXPECT_EQ(automatic.device.kind, DeviceKind::kCpu);
  EXPECT_EQ(automatic.fallback, "");  // it got what it asked for
  const DeviceChoice mps = ChooseDevice(DevicePreference::kMps);
  EXPECT_EQ(mps.device.kind, DeviceKind::kCpu);
  EXPECT_THAT(mps.fallback, HasSubstr("mps was asked for"));
  EXPECT_THAT(mps.fallback, HasSubstr("computing on the CPU"));
}

TEST(ChooseDevice, TheCpuIsAlwaysThere) {
  const DeviceChoice choice = ChooseDevice(DevicePreference::kCpu);
  EXPECT_EQ(choice.device.kind, DeviceKind::kCpu);
  EXPECT_FALSE(choice.device.UsesLibtorch());
  EXPECT_EQ(choice.fallback, "");
}

TEST(Device, HasANameAndMemory) {
  const Device cpu;
  EXPECT_THAT(DeviceName(cpu), HasSubstr("instructions"));
  const DeviceMemory memory = MemoryOf(cpu);
  EXPECT_GT(memory.total_bytes, int64_t{256} << 20);
  EXPECT_GT(memory.allocated_bytes, int64_t{1} << 20);
  EXPECT_LT(memory.allocated_bytes, memory.total_bytes);
}

// Tensors let go of in any thread live on until the device's thread releases them.
TEST(ReleasedTensors, AreReleasedWhereReleaseNowIsCalled) {
  at::Tensor tensor = at::zeros({4});
  const at::Tensor watched = tensor;
  std::thread([&] { ReleaseLater({std::move(tensor)}); }).join();
  EXPECT_EQ(watched.use_count(), 2);
  ReleaseNow();
  EXPECT_EQ(watched.use_count(), 1);
}

// A cache's destructor hands over what lies on a device; meta tensors stand for those.
TEST(ReleasedTensors, CachesHandTheirsOver) {
  const c10::InferenceMode no_views_kept;  // else a view keeps what it is a view of
  ModelConfig config;
  config.layers.resize(1);
  config.key_value_head_count = 2;
  config.head_size = 4;
  auto cache = std::make_unique<KvCache>(config);
  const at::Tensor rows = at::empty({3, 8}, at::TensorOptions(at::kFloat).device(at::kMeta));
  cache->Append(0, rows, rows);
  const at::Tensor view = cache->KeyTensor(0);
  std::thread([&] { cache.reset(); }).join();
  const size_t waiting = view.storage().use_count();
  ReleaseNow();
  EXPECT_EQ(view.storage().use_count(), waiting - 1);
}

float LargestDifference(const at::Tensor& a, const at::Tensor& b) {
  return *at::max(at::abs(at::sub(a, b))).data_ptr<float>();
}

// A head of more outputs than a piece has, against one in one piece.
TEST(DeviceMatrix, LargeOnesAreHeldInPieces) {
  constexpr int64_t kOut = DeviceMatrix::kMaxPieceRows + 5, kIn = 8;
  const auto read = [](int64_t first, int64_t count, float* values) {
    for (int64_t i = 0; i < count * kIn; ++i) values[i] = static_cast<float>((first * kIn + i) % 17 - 8);
    return true;
  };
  const auto matrix = UploadValues(read, kOut, kIn, NumberFormat::kBFloat16, at::kCPU);
  ASSERT_TRUE(matrix.has_value());
  ASSERT_EQ(matrix->pieces.size(), 2u);
  EXPECT_EQ(matrix->bytes(), kOut * kIn * 2);
  at::Tensor whole = at::empty({kOut, kIn});
  read(0, kOut, whole.data_ptr<float>());
  const at::Tensor x = at::rand({3, kIn});
  const at::Tensor rounded = x.to(at::kBFloat16).to(at::kFloat);
  const DeviceOperand operand = RoundOperand(x, NumberFormat::kBFloat16);
  const at::Tensor in_full = MultiplyOnDevice(operand, *matrix, true, nullptr);
  EXPECT_LT(LargestDifference(in_full, at::linear(rounded, whole)), 1e-4);
  // Without full precision the products are rounded too.
  const at::Tensor products = MultiplyOnDevice(operand, *matrix, false, nullptr);
  const float error = LargestDifference(products, at::linear(rounded, whole));
  EXPECT_GT(error, 1e-4);
  EXPECT_LT(error, 0.5);
}

TEST(DeviceMatrix, WhatIsNotFiniteIsRefused) {
  const auto read = [](int64_t, int64_t, float*) { return false; };
  EXPECT_FALSE(UploadValues(read, 4, 8, NumberFormat::kFloat32, at::kCPU).has_value());
  EXPECT_FALSE(UploadInt8(read, 4, 8, at::kCPU).has_value());
}

}  // namespace
}  // namespace mechinterp::engine
