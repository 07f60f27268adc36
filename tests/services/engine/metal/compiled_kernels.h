#ifndef TESTS_SERVICES_ENGINE_METAL_COMPILED_KERNELS_H_
#define TESTS_SERVICES_ENGINE_METAL_COMPILED_KERNELS_H_

#include <functional>
#include <map>
#include <string>

#include "services/engine/metal/kernel_library.h"
#include "tests/services/engine/metal/lanes.h"

namespace mechinterp::engine::metal {

// One thread of a kernel, with its buffers by index, the arguments among them.
using CompiledKernel = std::function<void(void* const* buffers, const metal_shim::ThreadPosition&)>;

struct BoundKernel {
  int buffer_count = 0;  // with the arguments
  CompiledKernel thread;
};

// The shader source as a C++ compiler makes it, by kernel name, for each way of
// looking up codes.
const std::map<std::string, BoundKernel>& CompiledKernels(Nf4Lookup lookup);

}  // namespace mechinterp::engine::metal

#endif  // TESTS_SERVICES_ENGINE_METAL_COMPILED_KERNELS_H_
