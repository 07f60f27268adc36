#include "services/engine/kernels/buffer.h"

#include <sys/mman.h>

#include <new>

namespace mechinterp::engine::kernels {

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  constexpr size_t kWorthLargePages = size_t{8} << 20;
  if (bytes >= kWorthLargePages) ::madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  data_ = static_cast<uint8_t*>(memory);
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace mechinterp::engine::kernels
