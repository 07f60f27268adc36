#ifndef SERVICES_ENGINE_DEVICE_DEVICE_H_
#define SERVICES_ENGINE_DEVICE_DEVICE_H_

#include <cstdint>
#include <string>

namespace mechinterp::engine {

enum class DeviceKind { kCpu, kMps, kCuda };

// "cpu", "mps", "cuda".
const char* DeviceKindName(DeviceKind kind);

// What a model is computed on. A value.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  // On the CPU: compute as on other devices, by libtorch, instead of by our own
  // kernels. It is how the tests run the devices' code where there is none.
  bool by_libtorch = false;

  // Whether libtorch computes; our CPU kernels do otherwise.
  bool UsesLibtorch() const { return by_libtorch || kind != DeviceKind::kCpu; }
};

// What a user asks for; kAuto: mps, else cuda, else the CPU.
enum class DevicePreference { kAuto, kCpu, kMps, kCuda };

struct DeviceChoice {
  Device device;
  // Why it is not the one that was asked for; empty when it is.
  std::string fallback;
};

// Takes what there is: the CPU where the device asked for is missing. Thread-safe.
DeviceChoice ChooseDevice(DevicePreference preference);

// "Apple M2", "AMD EPYC, AVX3_ZEN4 instructions": what the system calls the chip.
// "CUDA device 0".
std::string DeviceName(const Device& device);

struct DeviceMemory {
  // What the device recommends to use at most; of the CPU: physical memory. 0: unknown.
  int64_t total_bytes = 0;
  // What this process has taken of it; of the CPU: resident memory. 0: unknown.
  int64_t allocated_bytes = 0;
};
// From any thread; of a GPU as TrimDeviceCache saw it last.
DeviceMemory MemoryOf(const Device& device);

// Looks at a GPU's memory, and gives back what libtorch's allocator keeps without need
// when that has become more than a quarter of it, or in any case. Only from the thread
// that uses the device.
void TrimDeviceCache(const Device& device, bool release_all = false);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_DEVICE_DEVICE_H_
