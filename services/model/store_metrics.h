#ifndef SERVICES_MODEL_STORE_METRICS_H_
#define SERVICES_MODEL_STORE_METRICS_H_

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"

namespace mechinterp {

// What the activation store counts. Thread-safe.
struct StoreMetrics {
  explicit StoreMetrics(prometheus::Registry& registry);

  prometheus::Gauge& runs;          // each once, wherever it lies
  prometheus::Gauge& memory_bytes;  // mechinterp_stored_bytes{place="memory"}
  prometheus::Gauge& disk_bytes;    // {place="disk"}
  prometheus::Counter& spills;
  prometheus::Counter& loads;
  prometheus::Counter& damaged;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_STORE_METRICS_H_
