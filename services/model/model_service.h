#ifndef SERVICES_MODEL_MODEL_SERVICE_H_
#define SERVICES_MODEL_MODEL_SERVICE_H_

#include <functional>
#include <memory>
#include <utility>

#include "mechinterp/v1/model_service.grpc.pb.h"
#include "services/model/served_model.h"

namespace mechinterp {

// ModelService over one loaded model. What only looks something up is answered here;
// RPCs that run the model have handlers of their own (generate_handler.h, ...), which
// parse, run an engine operation on the scheduler and write the answer. Thread-safe.
class ModelService final : public v1::ModelService::Service {
 public:
  // `metrics` must outlive the service.
  ModelService(std::shared_ptr<const engine::Model> model, const ModelServiceOptions& options,
               ModelMetrics& metrics)
      : served_(std::move(model), options, metrics) {}

  // Ends what runs and waits on the engine with UNAVAILABLE; see Scheduler::Stop.
  void Stop() { served_.scheduler.Stop(); }

  // Checks the device, also for a client that `is_cancelled` (null: never) asks about.
  absl::StatusOr<engine::SelfCheck> RunDeviceCheck(std::function<bool()> is_cancelled = nullptr);
  DeviceCheck& device_check() { return served_.device_check; }

  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override;
  grpc::Status ListHookPoints(grpc::ServerContext* context, const v1::ListHookPointsRequest* request,
                              v1::ListHookPointsResponse* response) override;
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext* context, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status RunWithCache(grpc::ServerContext* context, const v1::RunWithCacheRequest* request,
                            grpc::ServerWriter<v1::RunWithCacheResponse>* writer) override;
  grpc::Status RunWithPatch(grpc::ServerContext* context, const v1::RunWithPatchRequest* request,
                            v1::RunWithPatchResponse* response) override;
  grpc::Status RunAttribution(grpc::ServerContext* context, const v1::RunAttributionRequest* request,
                              grpc::ServerWriter<v1::RunAttributionResponse>* writer) override;
  grpc::Status RunCircuit(grpc::ServerContext* context, const v1::RunCircuitRequest* request,
                          grpc::ServerWriter<v1::RunCircuitResponse>* writer) override;
  grpc::Status RunReadout(grpc::ServerContext* context, const v1::RunReadoutRequest* request,
                          grpc::ServerWriter<v1::RunReadoutResponse>* writer) override;
  grpc::Status RunPatchSweep(grpc::ServerContext* context, const v1::RunPatchSweepRequest* request,
                             grpc::ServerWriter<v1::RunPatchSweepResponse>* writer) override;
  grpc::Status ListActivations(grpc::ServerContext* context, const v1::ListActivationsRequest* request,
                               v1::ListActivationsResponse* response) override;
  grpc::Status GetActivation(grpc::ServerContext* context, const v1::GetActivationRequest* request,
                             grpc::ServerWriter<v1::GetActivationResponse>* writer) override;
  grpc::Status DeleteActivation(grpc::ServerContext* context, const v1::DeleteActivationRequest* request,
                                v1::DeleteActivationResponse* response) override;
  grpc::Status CheckDevice(grpc::ServerContext* context, const v1::CheckDeviceRequest* request,
                           v1::CheckDeviceResponse* response) override;

 private:
  ServedModel served_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_MODEL_SERVICE_H_
