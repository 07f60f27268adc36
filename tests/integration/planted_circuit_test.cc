// `abstract circuit`'s experiment on models whose circuit was put there: it finds that one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "clients/experiments/circuit.h"
#include "nlohmann/json.hpp"
#include "tests/integration/planted_server.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using nlohmann::json;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using testing::PlantedServer;
using Names = std::set<std::string>;

v1::CircuitResults ResultsOn(const PlantedServer& planted, int pair_count = 9) {
  CircuitOptions options;
  options.pairs = *LoadPromptPairs(PlantedServer::Data("prompts.json"), pair_count);
  options.neuron_count = 24;
  options.edge_count = 100;
  const auto results = RunCircuitExperiment(planted.context(), options);
  EXPECT_THAT(results, IsOk());
  return *results;
}

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
  const PlantedServer planted("single_path");
  const v1::CircuitResults results = ResultsOn(planted);
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
  const PlantedServer planted("backup");
  const v1::CircuitResults results = ResultsOn(planted);
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

// In each pair one of the two heads tells: it takes more pairs to be sure of both.
TEST(PlantedCircuit, AnAndNeedsBothOfItsHeads) {
  const PlantedServer planted("and");
  const v1::CircuitResults results = ResultsOn(planted, 15);
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_MEMBER), TruthOf(planted.truth().at("nodes")));
  EXPECT_THAT(EdgesOf(results), IsSupersetOf(TruthOf(planted.truth().at("edges"))));
}

TEST(PlantedCircuit, ADecoyIsNoMember) {
  const PlantedServer planted("decoy");
  const v1::CircuitResults results = ResultsOn(planted);
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_MEMBER), TruthOf(planted.truth().at("nodes")));
  EXPECT_THAT(NodesOf(results, v1::CIRCUIT_ROLE_BACKUP), IsEmpty());
  EXPECT_EQ(NodesOf(results, v1::CIRCUIT_ROLE_DECOY), TruthOf(planted.truth().at("decoys")));
}

}  // namespace
}  // namespace mechinterp
