#include "services/engine/forward/memory_use.h"

#include "services/engine/forward/cpu_arithmetic.h"
#include "services/engine/forward/kv_cache.h"

namespace mechinterp::engine {

MemoryUse CurrentMemoryUse() { return {KvCache::total_bytes(), CpuArithmetic::total_bytes()}; }

}  // namespace mechinterp::engine
