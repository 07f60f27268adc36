#include "services/model/served_model.h"

#include <utility>

#include "services/engine/weights/pass_scratch.h"
#include "services/model/response_building.h"

namespace mechinterp {

ServedModel::ServedModel(std::shared_ptr<const engine::Model> loaded,
                         const ModelServiceOptions& service_options, ModelMetrics& model_metrics)
    : model(std::move(loaded)),
      options(service_options),
      metrics(model_metrics),
      store(options.max_stored_bytes, metrics),
      budget(
          options.memory_limit_bytes,
          model->total_weight_bytes() + engine::ScratchBytes(config(), options.scheduler.max_batch_rows),
          [this] { return store.total_bytes(); },
          [this](int64_t reserved) { metrics.SetReserved(reserved); }),
      scheduler(model, options.scheduler, metrics) {
  metrics.SetModel(*model);
}

v1::ModelIdentity ServedModel::Identity() const { return BuildIdentity(*model, device_check.passed_id()); }

}  // namespace mechinterp
