#include "tests/services/engine/operations/peak_memory.h"

#include <c10/core/CPUAllocator.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace mechinterp::engine {
namespace {

std::atomic<int64_t> taken = 0;
std::atomic<int64_t> peak = 0;

void Took(int64_t bytes) {
  const int64_t now = taken += bytes;
  int64_t seen = peak;
  while (now > seen && !peak.compare_exchange_weak(seen, now)) {
  }
}

void* Take(size_t bytes, size_t alignment) {
  void* memory = nullptr;
  if (::posix_memalign(&memory, alignment, bytes) != 0) throw std::bad_alloc();
  Took(static_cast<int64_t>(::malloc_usable_size(memory)));
  return memory;
}

void Free(void* memory) {
  if (memory == nullptr) return;
  Took(-static_cast<int64_t>(::malloc_usable_size(memory)));
  std::free(memory);
}

class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) const override {
    if (bytes == 0) return {nullptr, nullptr, &Free, at::Device(at::kCPU)};
    void* memory = Take(bytes, 64);
    return {memory, memory, &Free, at::Device(at::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
};

}  // namespace

int64_t PeakBytesOf(absl::FunctionRef<void()> function) {
  static CountingAllocator allocator;
  c10::SetCPUAllocator(&allocator, /*priority=*/200);
  const int64_t before = taken;
  peak = before;
  function();
  return peak - before;
}

}  // namespace mechinterp::engine

// The whole program's.
void* operator new(size_t bytes) { return mechinterp::engine::Take(bytes, alignof(std::max_align_t)); }
void* operator new[](size_t bytes) { return mechinterp::engine::Take(bytes, alignof(std::max_align_t)); }
void operator delete(void* memory) noexcept { mechinterp::engine::Free(memory); }
void operator delete[](void* memory) noexcept { mechinterp::engine::Free(memory); }
void operator delete(void* memory, size_t) noexcept { mechinterp::engine::Free(memory); }
void operator delete[](void* memory, size_t) noexcept { mechinterp::engine::Free(memory); }
