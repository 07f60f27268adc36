#define NF4_TABLE_IN_THREADGROUP 1
#define SHADER_NAMESPACE threadgroup_lookup
#include "tests/services/engine/metal/compiled_kernels-inl.h"
