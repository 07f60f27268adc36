#ifndef SERVICES_ENGINE_BASE_HOST_TENSOR_H_
#define SERVICES_ENGINE_BASE_HOST_TENSOR_H_

#include <cstdint>
#include <vector>

namespace mechinterp::engine {

// A dense fp32 array in host memory, row-major: how activations, logits and the values of
// edits enter and leave the engine. libtorch's tensors stay in the rooms that compute with
// them (device, weights, metal, forward).
// A plain value: safe to read from many threads, like any const object.
struct HostTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;

  int64_t size() const { return static_cast<int64_t>(values.size()); }
};

// Product of the dimensions; 1 for a scalar (empty shape).
inline int64_t ElementCount(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_BASE_HOST_TENSOR_H_
