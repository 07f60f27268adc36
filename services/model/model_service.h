#ifndef SERVICES_MODEL_MODEL_SERVICE_H_
#define SERVICES_MODEL_MODEL_SERVICE_H_

#include <functional>
#include <memory>
#include <utility>

#include "mechinterp/v1/model_service.pb.h"
#include "services/model/served_model.h"
#include "services/rpc/service_methods.h"

namespace mechinterp {

// ModelService over one loaded model. What only looks something up is answered here;
// RPCs that run the model have handlers of their own (generate_handler.h, ...), which
// parse, run an engine operation on the scheduler and write the answer. Thread-safe.
class ModelService final {
 public:
  // `metrics` must outlive the service.
  ModelService(std::shared_ptr<const engine::Model> model, const ModelServiceOptions& options,
               ModelMetrics& metrics)
      : served_(std::move(model), options, metrics) {}

  // For an RpcServer. The service must outlive it.
  ServiceMethods Methods();

  // Ends what runs and waits on the engine with UNAVAILABLE; see Scheduler::Stop.
  void Stop() { served_.scheduler.Stop(); }

  // Checks the device, also for a client that `is_cancelled` (null: never) asks about.
  absl::StatusOr<engine::SelfCheck> RunDeviceCheck(std::function<bool()> is_cancelled = nullptr);
  DeviceCheck& device_check() { return served_.device_check; }

 private:
  void AddLookups(ServiceMethods& methods);
  void AddRuns(ServiceMethods& methods);
  void AddStoredRuns(ServiceMethods& methods);

  absl::Status GetModel(v1::GetModelResponse& response);
  absl::Status Tokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse& response);
  absl::Status Detokenize(const v1::DetokenizeRequest& request, v1::DetokenizeResponse& response);
  absl::Status CheckDevice(Call& call, v1::CheckDeviceResponse& response);

  ServedModel served_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_MODEL_SERVICE_H_
