#ifndef SERVICES_MODEL_SERVED_MODEL_H_
#define SERVICES_MODEL_SERVED_MODEL_H_

#include <cstdint>
#include <memory>

#include "mechinterp/v1/model_service.pb.h"
#include "services/engine/model.h"
#include "services/model/activation_store.h"
#include "services/model/device_check.h"
#include "services/model/heap_trimmer.h"
#include "services/model/memory_budget.h"
#include "services/model/model_metrics.h"
#include "services/model/scheduler.h"

namespace mechinterp {

struct ModelServiceOptions {
  SchedulerOptions scheduler;
  // Most bytes that one request may record, and that stored runs may take of memory.
  int64_t max_activation_bytes = int64_t{2} << 30;
  int64_t max_stored_bytes = int64_t{4} << 30;
  // Of the disk, where there is a folder for stored runs.
  int64_t max_stored_disk_bytes = int64_t{16} << 30;
  std::shared_ptr<SpillDirectory> store_directory;  // null: stored runs lie in memory only
  // Most bytes of memory for the model, forward passes, requests and stored runs
  // together; 0: no limit.
  int64_t memory_limit_bytes = 0;
};

// The model and what its requests share. Thread-safe.
struct ServedModel {
  // `model_metrics` must outlive it.
  ServedModel(std::shared_ptr<const engine::Model> loaded, const ModelServiceOptions& service_options,
              ModelMetrics& model_metrics);
  // Stored runs that lie in memory go to the disk, if they may lie there.
  ~ServedModel() { store.SpillAll(); }

  v1::ModelIdentity Identity() const;
  const engine::ModelConfig& config() const { return model->config(); }

  const std::shared_ptr<const engine::Model> model;
  const ModelServiceOptions options;
  ModelMetrics& metrics;
  HeapTrimmer trimmer;
  ActivationStore store;
  MemoryBudget budget;
  DeviceCheck device_check;
  Scheduler scheduler;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SERVED_MODEL_H_
