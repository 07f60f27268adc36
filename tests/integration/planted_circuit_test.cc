// `abstract circuit`'s experiment on models whose circuit was put there: it finds that one.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "clients/experiments/circuit.h"
#include "clients/lib/model_client.h"
#include "data/make_planted/planted_model.h"
#include "nlohmann/json.hpp"
#include "services/model/model_service.h"
#include "services/rpc/rpc_server.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using nlohmann::json;
using testing::IsEmpty;
using testing::IsSupersetOf;
using Names = std::set<std::string>;

const std::string kData = ABSTRACT_SOURCE_DIR "/data/";

// A planted model, served in this process.
class Planted {
 public:
  explicit Planted(const std::string& variant) {
    make_planted::PlantedOptions options;
    options.variant = variant;
    options.tokenizer = kData + "models/tiny-llama-refusal";
    options.prompts = kData + "prompts.json";
    options.phrases = kData + "refusal_phrases.json";
    const auto planted = make_planted::MakePlanted(options);
    EXPECT_THAT(planted, IsOk());
    truth_ = json::parse(planted->files.at("truth.json"));
    directory_ = std::filesystem::temp_directory_path() /
                 ("abstract-planted-" + variant + "-" + std::to_string(::getpid()));
    EXPECT_THAT(make_planted::WritePlanted(directory_.string(), *planted), IsOk());
    auto model = engine::Model::Load(directory_.string());
    EXPECT_THAT(model, IsOk());
    service_ = std::make_unique<ModelService>(*model, ModelServiceOptions(), metrics_);
    server_ = *RpcServer::Start({}, {service_->Methods()});
    client_ = std::make_unique<ModelClient>(v1::ModelService::NewStub(grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(server_->port()), grpc::InsecureChannelCredentials())));
  }
  ~Planted() { std::filesystem::remove_all(directory_); }

  v1::CircuitResults Run() {
    ExperimentContext context;
    context.client = client_.get();
    context.model = *client_->GetModel();
    CircuitOptions options;
    options.pairs = *LoadPromptPairs(kData + "prompts.json", 9);
    options.neuron_count = 24;
    options.edge_count = 100;
    const auto results = RunCircuitExperiment(context, options);
    EXPECT_THAT(results, IsOk());
    return *results;
  }

  const json& truth() const { return truth_; }

 private:
  json truth_;
  std::filesystem::path directory_;
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics_{registry_};
  std::unique_ptr<ModelService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<ModelClient> client_;
};

Names NodesOf(const v1::CircuitResults& results, v1::CircuitRole role) {
  Names names;
  for (const v1::MeasuredNode& node : results.nodes()) {
    if (node.role() == role) names.insert(node.name());
  }
  return names;
}

// As truth.json names them: an MLP as a receiver bears its sender's name.
Names EdgesOf(const v1::CircuitResults& results) {
  Names names;
  for (const v1::MeasuredEdge& edge : results.edges()) {
    const std::string& receiver = edge.receiver();
    names.insert(edge.sender() + "->" +
                 (receiver.ends_with("mlp_in") ? receiver.substr(0, receiver.size() - 3) : receiver));
  }
  return names;
}

Names TruthOf(const json& list) {
  Names names;
  for (const json& entry : list) {
    const auto name = (entry.is_string() ? entry : entry.at("name")).get<std::string>();
    if (name != "embed" && name != "final") names.insert(name);
  }
  return names;
}

TEST(PlantedCircuit, OfOnePathIsFoundWhole) {
  Planted planted("single_path");
  const v1::CircuitResults results = planted.Run();
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_MEMBER), TruthOf(planted.truth().at("nodes")));
  EXPECT_THAT(NodesOf(results, v1::CIRCUIT_ROLE_BACKUP), IsEmpty());
  EXPECT_EQ(EdgesOf(results), TruthOf(planted.truth().at("edges")));
  EXPECT_NEAR(results.faithfulness().mean(), 1, 0.05);
  EXPECT_NEAR(results.complement_faithfulness().mean(), 0, 0.05);
  for (const v1::MemberDrop& drop : results.minimality()) EXPECT_GT(drop.drop().lower(), 0.3) << drop.name();
  EXPECT_LT(results.parameter_share(), 0.05);
  EXPECT_EQ(results.pair_ids_size(), 6);
  EXPECT_EQ(results.test_pair_ids_size(), 3);
}

// Each is silent while the other speaks, so that neither is missed when it alone is patched.
TEST(PlantedCircuit, ABackupIsToldFromBystanders) {
  Planted planted("backup");
  const v1::CircuitResults results = planted.Run();
  const json& truth = planted.truth();
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_MEMBER), TruthOf(truth.at("nodes")));
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_BACKUP), TruthOf(truth.at("backups")));
  Names edges = TruthOf(truth.at("edges"));
  for (const json& edge : truth.at("backups").at(0).at("edges")) edges.insert(edge.get<std::string>());
  EXPECT_EQ(EdgesOf(results), edges);
  for (const v1::MeasuredNode& node : results.nodes()) {
    if (node.role() != v1::CIRCUIT_ROLE_BACKUP) continue;
    EXPECT_THAT(truth.at("backups").at(0).at("backs_up").get<Names>(), IsSupersetOf(node.backs_up()));
    EXPECT_NEAR(node.conditional().mean(), 0.5, 0.05);
    EXPECT_NEAR(node.noising().mean(), 0, 0.02);
  }
}

TEST(PlantedCircuit, AnAndNeedsBothOfItsHeads) {
  Planted planted("and");
  const v1::CircuitResults results = planted.Run();
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_MEMBER), TruthOf(planted.truth().at("nodes")));
  EXPECT_THAT(EdgesOf(results), IsSupersetOf(TruthOf(planted.truth().at("edges"))));
}

TEST(PlantedCircuit, ADecoyIsNoMember) {
  Planted planted("decoy");
  const v1::CircuitResults results = planted.Run();
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_MEMBER), TruthOf(planted.truth().at("nodes")));
  EXPECT_THAT(NodesOf(results, v1::CIRCUIT_ROLE_BACKUP), IsEmpty());
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_DECOY), TruthOf(planted.truth().at("decoys")));
}

}  // namespace
}  // namespace mechinterp
