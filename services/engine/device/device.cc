#include "services/engine/device/device.h"

#include <ATen/Context.h>
#include <torch/version.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/kernels/rows.h"

#if defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

// Figures of MPS's memory are there from libtorch 2.5 on, of CUDA's, without its own
// headers, from 2.10 on.
#define ABSTRACT_LIBTORCH_AT_LEAST(major, minor) \
  (TORCH_VERSION_MAJOR > (major) || (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 5)
#include <ATen/detail/MPSHooksInterface.h>
#endif
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 10)
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

// As the thread that uses the device saw them last.
std::atomic<int64_t> gpu_total_bytes = 0;
std::atomic<int64_t> gpu_allocated_bytes = 0;

struct GpuMemory {
  int64_t total = 0;
  int64_t allocated = 0;  // taken from the system
  int64_t used = 0;       // of that, by tensors
};

// Zeros where libtorch does not tell.
GpuMemory ReadGpuMemory(DeviceKind kind) {
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 5)
  if (kind == DeviceKind::kMps) {
    const auto& hooks = at::detail::getMPSHooks();
    return {static_cast<int64_t>(hooks.getRecommendedMaxMemory()),
            static_cast<int64_t>(hooks.getDriverAllocatedMemory()),
            static_cast<int64_t>(hooks.getCurrentAllocatedMemory())};
  }
#endif
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 10)
  if (kind == DeviceKind::kCuda) {
    at::globalContext().lazyInitDevice(at::kCUDA);
    const auto stats = at::accelerator::getDeviceStats(0);
    return {static_cast<int64_t>(at::accelerator::getMemoryInfo(0).second), stats.reserved_bytes[0].current,
            stats.allocated_bytes[0].current};
  }
#endif
  (void)kind;
  return {};
}

void EmptyCache(DeviceKind kind) {
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 5)
  if (kind == DeviceKind::kMps) at::detail::getMPSHooks().emptyCache();
#endif
#if ABSTRACT_LIBTORCH_AT_LEAST(2, 10)
  if (kind == DeviceKind::kCuda) at::accelerator::emptyCache();
#endif
  (void)kind;
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
  return {gpu_total_bytes, gpu_allocated_bytes};
}

void TrimDeviceCache(const Device& device, bool release_all) {
  if (device.kind == DeviceKind::kCpu) return;
  try {
    const GpuMemory memory = ReadGpuMemory(device.kind);
    gpu_total_bytes = memory.total;
    gpu_allocated_bytes = memory.allocated;
    const bool wasteful = memory.total > 0 && memory.allocated - memory.used > memory.total / 4;
    if (release_all || wasteful) EmptyCache(device.kind);
  } catch (const std::exception&) {
    // Figures are for people to look at: without them everything else goes on.
  }
}

}  // namespace mechinterp::engine
