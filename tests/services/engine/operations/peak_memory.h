#ifndef TESTS_SERVICES_ENGINE_OPERATIONS_PEAK_MEMORY_H_
#define TESTS_SERVICES_ENGINE_OPERATIONS_PEAK_MEMORY_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace mechinterp::engine {

// The most bytes of the heap that were taken at once while `function` ran, beyond those that
// were taken before: by operator new, which this program replaces, and by libtorch's
// allocator for the CPU, through which keys and values come. Not what forward passes keep for
// the next one (kernels::Buffer), which is estimated apart. One at a time.
int64_t PeakBytesOf(absl::FunctionRef<void()> function);

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_OPERATIONS_PEAK_MEMORY_H_
