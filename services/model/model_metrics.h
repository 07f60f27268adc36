#ifndef SERVICES_MODEL_MODEL_METRICS_H_
#define SERVICES_MODEL_MODEL_METRICS_H_

#include <array>
#include <memory>

#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "services/engine/model.h"
#include "services/model/generation_metrics.h"
#include "services/model/pass_planner.h"
#include "services/model/store_metrics.h"

namespace mechinterp {

// Rows of a pass, by RowKind.
using RowCounts = std::array<int, kRowKindCount>;

// What the model service counts, besides the per-RPC metrics that every server
// has. Names start with mechinterp_. Thread-safe.
class ModelMetrics {
 public:
  explicit ModelMetrics(std::shared_ptr<prometheus::Registry> registry);

  // mechinterp_model_info{name,hash,quantization,device} 1, and its sizes.
  void SetModel(const engine::Model& model);
  void ObservePass(const RowCounts& rows, int segments, absl::Duration duration);
  // What --memory-limit says (0: nothing), and what of it weights and scratch always take. Once, after
  // SetModel.
  void SetLimit(int64_t limit_bytes, int64_t fixed_bytes);
  // What requests in progress have reserved, when that changes.
  void SetReserved(int64_t bytes);
  // How long the engine waited, with work at hand, for others to join the pass.
  void ObserveGatherWait(absl::Duration wait);

 private:
  void UpdateMemory();

  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Histogram& pass_rows_;
  prometheus::Histogram& pass_segments_;
  prometheus::Histogram& pass_seconds_;
  prometheus::Histogram& gather_seconds_;
  const std::array<prometheus::Counter*, kRowKindCount> rows_by_kind_;
  prometheus::Family<prometheus::Gauge>& memory_bytes_;
  prometheus::Gauge& reserved_bytes_;
  prometheus::Gauge& device_bytes_;
  prometheus::Gauge& cache_usage_;
  prometheus::Gauge& limit_bytes_;
  prometheus::Gauge& fixed_bytes_;
  // Set once, before anything is observed.
  engine::Device device_;
  double cache_capacity_ = 0;  // bytes

 public:
  prometheus::Gauge& requests_in_progress;
  prometheus::Gauge& queued_rows;
  prometheus::Counter& failed_passes;
  prometheus::Counter& prompt_tokens;
  prometheus::Counter& generated_tokens;
  prometheus::Counter& patch_runs;
  prometheus::Counter& sweep_runs;
  prometheus::Counter& circuit_runs;
  prometheus::Counter& sweep_computed_token_layers;
  prometheus::Counter& sweep_naive_token_layers;
  GenerationMetrics generations;
  StoreMetrics store;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_MODEL_METRICS_H_
