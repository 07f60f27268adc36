#ifndef SERVICES_ENGINE_CHECKPOINT_STORED_VALUES_H_
#define SERVICES_ENGINE_CHECKPOINT_STORED_VALUES_H_

#include <cstdint>

#include "services/engine/checkpoint/safetensors.h"
#include "services/engine/kernels/quantize.h"

namespace mechinterp::engine {

// A floating-point tensor of a mapped file (F32, F16 or BF16: Checkpoint::Tensor
// returns no other) as the kernels read it. Valid as long as the mapping.
class StoredValues {
 public:
  explicit StoredValues(const TensorView& view)
      : data_(view.bytes.data()), width_(ByteWidth(view.dtype)), type_(view.dtype) {}

  NumberFormat type() const { return type_; }
  const void* At(int64_t index) const { return data_ + index * width_; }
  // Values [first, first + count) as fp32; false when one is not finite.
  bool Read(int64_t first, int64_t count, float* values) const {
    return kernels::ConvertToFloat(At(first), type_, count, values);
  }

 private:
  const std::byte* data_;
  int64_t width_;
  NumberFormat type_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_STORED_VALUES_H_
