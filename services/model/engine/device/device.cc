#include "services/model/engine/device/device.h"

#include <ATen/Context.h>
#include <torch/version.h>
#include <unistd.h>

#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/model/engine/kernels/kernels.h"

#if defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

// Figures of MPS's memory came with libtorch 2.3, those of other accelerators with 2.9.
#define ABSTRACT_LIBTORCH_AT_LEAST(major, minor) \
  (TORCH_VERSION_MAJOR > (major) || (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 3)
#include <ATen/detail/MPSHooksInterface.h>
#endif
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 9)
#include <ATen/DeviceAccelerator.h>
#endif

namespace mechinterp::engine {
namespace {

bool IsThere(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kMps:
      return at::hasMPS();
    case DeviceKind::kCuda:
      return at::hasCUDA();
    case DeviceKind::kCpu:
      break;
  }
  return true;
}

std::string CpuName() {
#if defined(__APPLE__)
  char name[256] = "";
  size_t size = sizeof(name);
  if (::sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0) return name;
#else
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::pair<std::string, std::string> field = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (absl::StripAsciiWhitespace(field.first) == "model name") {
      return std::string(absl::StripAsciiWhitespace(field.second));
    }
  }
#endif
  return "CPU";
}

int64_t PhysicalMemory() {
#if defined(__APPLE__)
  int64_t bytes = 0;
  size_t size = sizeof(bytes);
  return ::sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) == 0 ? bytes : 0;
#else
  return int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
#endif
}

int64_t ResidentMemory() {
#if defined(__APPLE__)
  mach_task_basic_info_data_t info = {};
  mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
  const kern_return_t result =
      ::task_info(mach_task_self(), MACH_TASK_BASIC_INFO, reinterpret_cast<task_info_t>(&info), &count);
  return result == KERN_SUCCESS ? static_cast<int64_t>(info.resident_size) : 0;
#else
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
#endif
}

}  // namespace

const char* DeviceKindName(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kMps:
      return "mps";
    case DeviceKind::kCuda:
      return "cuda";
    case DeviceKind::kCpu:
      break;
  }
  return "cpu";
}

DeviceChoice ChooseDevice(DevicePreference preference) {
  auto of = [](DeviceKind kind) { return DeviceChoice{{kind, false}, ""}; };
  auto want = [&](DeviceKind kind, const char* missing) {
    if (IsThere(kind)) return of(kind);
    DeviceChoice choice = of(DeviceKind::kCpu);
    choice.fallback = absl::StrCat(DeviceKindName(kind), " was asked for, and libtorch ", TORCH_VERSION,
                                   " sees no ", missing, " here; computing on the CPU");
    return choice;
  };
  switch (preference) {
    case DevicePreference::kMps:
      return want(DeviceKind::kMps, "Apple GPU");
    case DevicePreference::kCuda:
      return want(DeviceKind::kCuda, "CUDA device");
    case DevicePreference::kCpu:
      return of(DeviceKind::kCpu);
    case DevicePreference::kAuto:
      break;
  }
  for (DeviceKind kind : {DeviceKind::kMps, DeviceKind::kCuda}) {
    if (IsThere(kind)) return of(kind);
  }
  return of(DeviceKind::kCpu);
}

std::string DeviceName(const Device& device) {
  if (device.kind == DeviceKind::kCuda) return "CUDA device 0";
  const std::string chip = CpuName();
  if (device.UsesLibtorch()) return chip;  // of a Mac: the chip is the GPU too
  return absl::StrCat(chip, ", ", kernels::InstructionSet(), " instructions");
}

DeviceMemory MemoryOf(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return {PhysicalMemory(), ResidentMemory()};
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 3)
  if (device.kind == DeviceKind::kMps) {
    const auto& hooks = at::detail::getMPSHooks();
    return {static_cast<int64_t>(hooks.getRecommendedMaxMemory()),
            static_cast<int64_t>(hooks.getDriverAllocatedMemory())};
  }
#endif
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 9)
  if (device.kind == DeviceKind::kCuda) {
    const auto stats = at::accelerator::getDeviceStats(0);
    const auto [free, total] = at::accelerator::getMemoryInfo(0);
    return {static_cast<int64_t>(total), stats.reserved_bytes[0].current};
  }
#endif
  return {};
}

void ReleaseUnusedMemory(const Device& device) {
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 3)
  if (device.kind != DeviceKind::kMps) return;
  const auto& hooks = at::detail::getMPSHooks();
  const size_t taken = hooks.getDriverAllocatedMemory(), used = hooks.getCurrentAllocatedMemory();
  if (taken > used && taken - used > hooks.getRecommendedMaxMemory() / 4) hooks.emptyCache();
#else
  (void)device;
#endif
}

}  // namespace mechinterp::engine
