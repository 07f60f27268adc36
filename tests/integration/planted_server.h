#ifndef TESTS_INTEGRATION_PLANTED_SERVER_H_
#define TESTS_INTEGRATION_PLANTED_SERVER_H_

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "clients/experiments/experiment.h"
#include "clients/lib/model_client.h"
#include "data/make_planted/planted_model.h"
#include "nlohmann/json.hpp"
#include "services/model/model_service.h"
#include "services/rpc/rpc_server.h"
#include "tests/status_matchers.h"

namespace mechinterp::testing {

// A planted model, served in this process.
class PlantedServer {
 public:
  // `prompts`: a file of the repository's data, whose words it knows.
  explicit PlantedServer(const std::string& variant, const std::string& prompts = "prompts.json",
                         uint64_t seed = 1) {
    make_planted::PlantedOptions options;
    options.variant = variant;
    options.seed = seed;
    options.tokenizer = Data("models/tiny-llama-refusal");
    options.prompts = Data(prompts);
    options.phrases = Data("refusal_phrases.json");
    const auto planted = make_planted::MakePlanted(options);
    EXPECT_THAT(planted, IsOk());
    truth_ = nlohmann::json::parse(planted->files.at("truth.json"));
    directory_ = std::filesystem::temp_directory_path() /
                 ("abstract-planted-" + variant + "-" + std::to_string(::getpid()));
    EXPECT_THAT(make_planted::WritePlanted(directory_.string(), *planted), IsOk());
    auto model = engine::Model::Load(directory_.string());
    EXPECT_THAT(model, IsOk());
    service_ = std::make_unique<ModelService>(*model, ModelServiceOptions(), metrics_);
    server_ = *RpcServer::Start({}, {service_->Methods()});
    client_ = std::make_unique<ModelClient>(
        v1::ModelService::NewStub(grpc::CreateChannel(address(), grpc::InsecureChannelCredentials())));
  }
  ~PlantedServer() { std::filesystem::remove_all(directory_); }

  // A file of the repository's data.
  static std::string Data(const std::string& name) { return ABSTRACT_SOURCE_DIR "/data/" + name; }

  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  ExperimentContext context() const {
    ExperimentContext context;
    context.client = client_.get();
    context.model = *client_->GetModel();
    return context;
  }
  const nlohmann::json& truth() const { return truth_; }

 private:
  nlohmann::json truth_;
  std::filesystem::path directory_;
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics_{registry_};
  std::unique_ptr<ModelService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<ModelClient> client_;
};

}  // namespace mechinterp::testing

#endif  // TESTS_INTEGRATION_PLANTED_SERVER_H_
