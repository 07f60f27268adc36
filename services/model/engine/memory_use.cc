#include "services/model/engine/memory_use.h"

#include "services/model/engine/kv_cache.h"
#include "services/model/engine/workspace.h"

namespace mechinterp::engine {

MemoryUse CurrentMemoryUse() { return {KvCache::total_bytes(), Workspace::total_bytes()}; }

}  // namespace mechinterp::engine
