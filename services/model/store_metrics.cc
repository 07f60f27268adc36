#include "services/model/store_metrics.h"

#include <string>

namespace mechinterp {
namespace {

prometheus::Gauge& BytesIn(prometheus::Registry& registry, const std::string& place) {
  return prometheus::BuildGauge()
      .Name("mechinterp_stored_bytes")
      .Help("Bytes that stored runs take, by where they lie; runs in memory may lie on the disk too.")
      .Register(registry)
      .Add({{"place", place}});
}

prometheus::Counter& Counter(prometheus::Registry& registry, const std::string& name,
                             const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

}  // namespace

StoreMetrics::StoreMetrics(prometheus::Registry& registry)
    : runs(prometheus::BuildGauge()
               .Name("mechinterp_stored_runs")
               .Help("Runs stored by RunWithCache.")
               .Register(registry)
               .Add({})),
      memory_bytes(BytesIn(registry, "memory")),
      disk_bytes(BytesIn(registry, "disk")),
      spills(Counter(registry, "mechinterp_store_spills_total", "Stored runs written to the disk.")),
      loads(Counter(registry, "mechinterp_store_loads_total", "Stored runs read back from the disk.")),
      damaged(Counter(registry, "mechinterp_store_corrupt_total",
                      "Stored runs whose files were found damaged, and were removed.")) {}

}  // namespace mechinterp
