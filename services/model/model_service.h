#ifndef SERVICES_MODEL_MODEL_SERVICE_H_
#define SERVICES_MODEL_MODEL_SERVICE_H_

#include <functional>
#include <memory>

#include "mechinterp/v1/model_service.grpc.pb.h"
#include "services/engine/model.h"
#include "services/engine/operations/cached_run.h"
#include "services/model/activation_store.h"
#include "services/model/device_check.h"
#include "services/model/memory_budget.h"
#include "services/model/model_metrics.h"
#include "services/model/request_parsing.h"
#include "services/model/scheduler.h"

namespace mechinterp {

struct ModelServiceOptions {
  SchedulerOptions scheduler;
  // Most bytes that one request may record, and that stored runs may hold.
  int64_t max_activation_bytes = int64_t{2} << 30;
  int64_t max_stored_bytes = int64_t{4} << 30;
  // Most bytes of memory for the model, forward passes, requests and stored runs
  // together; 0: no limit.
  int64_t memory_limit_bytes = 0;
};

// ModelService over one loaded model. Handlers are thin: parse, run an engine
// operation on the scheduler, write the answer. Thread-safe.
class ModelService final : public v1::ModelService::Service {
 public:
  // `metrics` must outlive the service.
  ModelService(std::shared_ptr<const engine::Model> model, const ModelServiceOptions& options,
               ModelMetrics& metrics);

  // Ends what runs and waits on the engine with UNAVAILABLE; see Scheduler::Stop.
  void Stop() { scheduler_.Stop(); }

  // Checks the device, also for a client that `is_cancelled` (null: never) asks about.
  absl::StatusOr<engine::SelfCheck> RunDeviceCheck(std::function<bool()> is_cancelled = nullptr);
  DeviceCheck& device_check() { return device_check_; }

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
  // A handler's share of the engine while it runs.
  struct Call;

  absl::Status DoGenerate(Call& call, const v1::GenerateRequest& request,
                          grpc::ServerWriter<v1::GenerateResponse>& writer);
  absl::Status DoRunWithCache(Call& call, const v1::RunWithCacheRequest& request,
                              grpc::ServerWriter<v1::RunWithCacheResponse>& writer);
  absl::Status DoRunWithPatch(Call& call, const v1::RunWithPatchRequest& request,
                              v1::RunWithPatchResponse& response);
  absl::Status DoRunPatchSweep(Call& call, const v1::RunPatchSweepRequest& request,
                               grpc::ServerWriter<v1::RunPatchSweepResponse>& writer);
  v1::ModelIdentity Identity() const;
  // Compiles one prompt's interventions and captures, has the request admitted, and
  // runs the sources. `run_bytes`: what the run itself may take in memory.
  absl::StatusOr<std::shared_ptr<const engine::HookPlan>> Compile(
      Call& call, RequestParser& parser, const engine::TokenizedPrompt& prompt,
      const engine::InterventionSet& interventions, const engine::CaptureRequest& capture, int64_t run_bytes);
  // Bytes that a capture takes; fails when it is more than one request may record.
  absl::StatusOr<int64_t> CaptureBytes(const engine::CaptureRequest& capture,
                                       const engine::TokenizedPrompt& prompt) const;

  const std::shared_ptr<const engine::Model> model_;
  const ModelServiceOptions options_;
  ModelMetrics& metrics_;
  ActivationStore store_;
  MemoryBudget budget_;
  DeviceCheck device_check_;
  Scheduler scheduler_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_MODEL_SERVICE_H_
