#ifndef SERVICES_ENGINE_KERNELS_BUFFER_H_
#define SERVICES_ENGINE_KERNELS_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <utility>

namespace mechinterp::engine::kernels {

// Memory for weights: zeroed, aligned to a cache line, and backed by large pages
// where the system has them, since products stream through gigabytes of it.
// Throws std::bad_alloc. Movable.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept
      : size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
    return *this;
  }

  size_t size() const { return size_; }
  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }

 private:
  size_t size_ = 0;
  uint8_t* data_ = nullptr;
};

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_BUFFER_H_
