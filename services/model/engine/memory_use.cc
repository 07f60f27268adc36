#include "services/model/engine/memory_use.h"

#include "services/model/engine/device/cpu_arithmetic.h"
#include "services/model/engine/kv_cache.h"

namespace mechinterp::engine {

MemoryUse CurrentMemoryUse() { return {KvCache::total_bytes(), CpuArithmetic::total_bytes()}; }

}  // namespace mechinterp::engine
