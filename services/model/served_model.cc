#include "services/model/served_model.h"

#include <utility>

#include "services/engine/weights/pass_scratch.h"
#include "services/model/response_building.h"

namespace mechinterp {
namespace {

ActivationStoreOptions StoreOptions(const ModelServiceOptions& options) {
  return {.max_memory_bytes = options.max_stored_bytes,
          .max_disk_bytes = options.max_stored_disk_bytes,
          .directory = options.store_directory,
          .tidy_interval = absl::Seconds(10)};
}

}  // namespace

ServedModel::ServedModel(std::shared_ptr<const engine::Model> loaded,
                         const ModelServiceOptions& service_options, ModelMetrics& model_metrics)
    : model(std::move(loaded)),
      options(service_options),
      metrics(model_metrics),
      store(StoreOptions(options), metrics.store),
      budget(
          options.memory_limit_bytes,
          model->total_weight_bytes() + engine::ScratchBytes(config(), options.scheduler.max_batch_rows),
          [this] { return store.memory_bytes(); },
          [this](int64_t reserved) {
            metrics.SetReserved(reserved);
            trimmer.ReservedChanged(reserved);
          }),
      scheduler(model, options.scheduler, metrics) {
  metrics.SetModel(*model);
  metrics.SetLimit(budget.limit_bytes(), budget.fixed_bytes());
  store.set_reserve([this](int64_t bytes) { return budget.Reserve(bytes); });
  budget.set_free_memory([this](int64_t bytes) { store.FreeMemory(bytes); });
}

v1::ModelIdentity ServedModel::Identity() const { return BuildIdentity(*model, device_check.passed_id()); }

}  // namespace mechinterp
