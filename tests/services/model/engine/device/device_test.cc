#include "services/model/engine/device/device.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "services/model/engine/device/released_tensors.h"

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

}  // namespace
}  // namespace mechinterp::engine
