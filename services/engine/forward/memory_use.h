#ifndef SERVICES_ENGINE_FORWARD_MEMORY_USE_H_
#define SERVICES_ENGINE_FORWARD_MEMORY_USE_H_

#include <cstdint>

namespace mechinterp::engine {

// Bytes that the engine holds at this moment beside the weights, in this process.
struct MemoryUse {
  int64_t key_value_caches = 0;  // of requests in progress
  int64_t scratch = 0;           // of forward passes, kept for the next
};

// From any thread.
MemoryUse CurrentMemoryUse();

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_MEMORY_USE_H_
