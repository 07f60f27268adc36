#ifndef TESTS_SERVICES_MODEL_SERVICE_FIXTURE_H_
#define TESTS_SERVICES_MODEL_SERVICE_FIXTURE_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/text_format.h"
#include "mechinterp/v1/model_service.grpc.pb.h"
#include "services/model/model_service.h"
#include "services/rpc/rpc_server.h"
#include "tests/services/engine/fixture.h"

namespace mechinterp {

// A message from its text form; aborts on a bad text.
template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  if (!google::protobuf::TextFormat::ParseFromString(text, &message)) std::abort();
  return message;
}

// A model service behind a real server on loopback, and a client of it.
class ServiceFixture {
 public:
  explicit ServiceFixture(std::shared_ptr<const engine::Model> model,
                          const ModelServiceOptions& options = {});

  v1::ModelService::Stub& stub() { return *stub_; }
  ModelService& service() { return service_; }
  const std::shared_ptr<prometheus::Registry>& registry() { return registry_; }

  // As the server does on SIGTERM.
  void Shutdown(absl::Duration grace) {
    server_->Shutdown(grace, [this] { service_.Stop(); });
  }

  // The activations of a RunWithCache by name, put together from its chunks.
  struct Cached {
    grpc::Status status;
    v1::RunHeader header;
    v1::RunSummary summary;
    std::map<std::string, engine::HostTensor> tensors;
  };
  Cached RunWithCache(const v1::RunWithCacheRequest& request);

  struct Generated {
    grpc::Status status;
    v1::RunHeader header;
    std::vector<v1::GeneratedToken> tokens;
    v1::GenerateSummary summary;
  };
  Generated Generate(const v1::GenerateRequest& request);

  struct Swept {
    grpc::Status status;
    v1::SweepHeader header;
    std::map<uint32_t, v1::SweepResult> results;
    v1::SweepSummary summary;
  };
  Swept Sweep(const v1::RunPatchSweepRequest& request);

 private:
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics_{registry_};
  ModelService service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::ModelService::Stub> stub_;
};

// (field, description) of a failed request's BadRequest; and the fields alone.
std::vector<std::pair<std::string, std::string>> ViolationsOf(const grpc::Status& status);
std::vector<std::string> FieldsAtFault(const grpc::Status& status);

// A fixture's case as a client would ask for it.
google::protobuf::RepeatedPtrField<v1::Intervention> ToProto(const engine::InterventionSet& interventions);
v1::Prompt ToProto(const engine::TokenizedPrompt& prompt);

}  // namespace mechinterp

#endif  // TESTS_SERVICES_MODEL_SERVICE_FIXTURE_H_
