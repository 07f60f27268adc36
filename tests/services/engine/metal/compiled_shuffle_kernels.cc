#define NF4_TABLE_IN_THREADGROUP 0
#define SHADER_NAMESPACE shuffle_lookup
#include "tests/services/engine/metal/compiled_kernels-inl.h"

namespace threadgroup_lookup {
const std::map<std::string, mechinterp::engine::metal::BoundKernel>&
Kernels();  // compiled_threadgroup_kernels.cc
}

namespace mechinterp::engine::metal {

const std::map<std::string, BoundKernel>& CompiledKernels(Nf4Lookup lookup) {
  return lookup == Nf4Lookup::kShuffle ? shuffle_lookup::Kernels() : threadgroup_lookup::Kernels();
}

}  // namespace mechinterp::engine::metal
