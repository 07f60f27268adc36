#ifndef TESTS_CLIENTS_FAKE_MODEL_SERVICE_H_
#define TESTS_CLIENTS_FAKE_MODEL_SERVICE_H_

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "clients/lib/model_client.h"
#include "grpcpp/grpcpp.h"
#include "mechinterp/v1/model_service.grpc.pb.h"
#include "tests/clients/toy_activations.h"
#include "tests/clients/toy_model.h"

namespace mechinterp::testing {

// A ModelService around the toy model that can be told to fail and remembers
// what it was asked. Its refusal log-odds are 1 below the logit difference. By its
// clock a prompt token takes 1 ms, a new token 10 ms and a run of a sweep 2 ms.
// Attributes all of the logit difference's change to one node, blocks.0.attn.hook_z[1] at the last
// position: a tensor of that site is [positions, 2]. Records activations at named sites and "logits", at all
// positions, and stores runs. Reads out half of the logit difference at the one layer's beginning, and
// all in the end, of which one head adds all but 1, the embedding 1; at the last position, or with
// positions asked for at the first two. Thread-safe.
class FakeModelService final : public v1::ModelService::Service {
 public:
  // The next calls of `method` fail with these, in turn.
  void FailNext(const std::string& method, std::vector<absl::Status> failures);
  // Drops the stored runs, as if their time had come.
  void ExpireStoredRuns();
  void set_model_hash(const std::string& hash);
  // Another one is another serving_hash too.
  void set_compute_type(v1::ComputeType type);
  // How its activations at named sites differ from another fake's.
  void set_deviation(const ToyDeviation& deviation);
  // What CheckDevice answers.
  void set_device_check(const v1::CheckDeviceResponse& check);
  // The token ids of every continuation.
  void set_continuation(std::vector<uint32_t> token_ids);

  // Whether Generate knows of metrics; older servers do not.
  void set_gives_metrics(bool gives);
  // What ListHookPoints says of every point.
  void set_hooks_are_editable(bool editable);
  // Without one, prompts are token ids and continuations have no text.
  void set_has_tokenizer(bool has);

  int call_count(const std::string& method) const;
  int stored_run_count() const;
  std::vector<v1::GenerateRequest> generate_requests() const;
  std::vector<v1::RunWithPatchRequest> patch_requests() const;
  std::vector<v1::RunPatchSweepRequest> sweep_requests() const;
  std::vector<v1::RunAttributionRequest> attribution_requests() const;
  std::vector<v1::RunReadoutRequest> readout_requests() const;

  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::GetModelResponse*) override;
  grpc::Status ListHookPoints(grpc::ServerContext*, const v1::ListHookPointsRequest*,
                              v1::ListHookPointsResponse*) override;
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest*, v1::TokenizeResponse*) override;
  grpc::Status Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest*,
                          v1::DetokenizeResponse*) override;
  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest*,
                        grpc::ServerWriter<v1::GenerateResponse>*) override;
  grpc::Status RunWithCache(grpc::ServerContext*, const v1::RunWithCacheRequest*,
                            grpc::ServerWriter<v1::RunWithCacheResponse>*) override;
  grpc::Status RunWithPatch(grpc::ServerContext*, const v1::RunWithPatchRequest*,
                            v1::RunWithPatchResponse*) override;
  grpc::Status RunPatchSweep(grpc::ServerContext*, const v1::RunPatchSweepRequest*,
                             grpc::ServerWriter<v1::RunPatchSweepResponse>*) override;
  grpc::Status RunAttribution(grpc::ServerContext*, const v1::RunAttributionRequest*,
                              grpc::ServerWriter<v1::RunAttributionResponse>*) override;
  grpc::Status RunReadout(grpc::ServerContext*, const v1::RunReadoutRequest*,
                          grpc::ServerWriter<v1::RunReadoutResponse>*) override;
  grpc::Status CheckDevice(grpc::ServerContext*, const v1::CheckDeviceRequest*,
                           v1::CheckDeviceResponse*) override;
  grpc::Status DeleteActivation(grpc::ServerContext*, const v1::DeleteActivationRequest*,
                                v1::DeleteActivationResponse*) override;

 private:
  // Counts the call; the failure that was ordered for it, or OK.
  absl::Status Enter(const std::string& method);
  v1::ModelIdentity identity() const;
  // What a run with this logit difference says.
  v1::Continuation ContinuationOf(double logit_difference) const;
  absl::StatusOr<ToyRun> Find(const v1::ActivationSource& source);
  template <typename Interventions>
  absl::StatusOr<ToyRun> Run(const v1::Prompt& prompt, const Interventions& interventions);
  absl::Status WriteSweep(const v1::RunPatchSweepRequest& request,
                          grpc::ServerWriter<v1::RunPatchSweepResponse>& writer);

  mutable std::mutex mutex_;
  ToyTokenizer tokenizer_;
  std::string model_hash_ = "0123456789abcdef";
  v1::ComputeType compute_type_ = v1::COMPUTE_TYPE_FLOAT32;
  ToyDeviation deviation_;
  v1::CheckDeviceResponse device_check_;
  std::vector<uint32_t> continuation_ = {1};
  bool gives_metrics_ = true;
  bool hooks_are_editable_ = true;
  bool has_tokenizer_ = true;
  std::map<std::string, std::deque<absl::Status>> failures_;
  std::map<std::string, int> calls_;
  std::map<std::string, ToyRun> stored_;
  int next_handle_ = 0;
  std::vector<v1::GenerateRequest> generate_requests_;
  std::vector<v1::RunWithPatchRequest> patch_requests_;
  std::vector<v1::RunPatchSweepRequest> sweep_requests_;
  std::vector<v1::RunAttributionRequest> attribution_requests_;
  std::vector<v1::RunReadoutRequest> readout_requests_;
};

// The fake on a local port with a client whose retries do not wait.
struct FakeServer {
  FakeServer();
  ~FakeServer();

  std::string address() const { return "127.0.0.1:" + std::to_string(port); }
  v1::GetModelResponse GetModel();

  FakeModelService service;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
  std::vector<absl::Duration> sleeps;  // Of the client; single-threaded tests only.
  std::mutex sleeps_mutex;
  std::unique_ptr<ModelClient> client;
};

}  // namespace mechinterp::testing

#endif  // TESTS_CLIENTS_FAKE_MODEL_SERVICE_H_
