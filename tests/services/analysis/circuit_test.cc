#include "services/analysis/circuit.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mechinterp {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

v1::RankedComponent Ranked(v1::ComponentKind kind, int layer, const std::string& name, double score) {
  v1::RankedComponent ranked;
  ranked.mutable_component()->set_kind(kind);
  ranked.mutable_component()->set_layer(layer);
  ranked.mutable_component()->set_name(name);
  ranked.set_score(score);
  return ranked;
}

v1::RankedComponent Head(int layer, const std::string& name, double score) {
  return Ranked(v1::COMPONENT_KIND_HEAD, layer, name, score);
}

v1::RankedComponent Neurons(int layer, const std::string& name, double score) {
  return Ranked(v1::COMPONENT_KIND_NEURON_GROUP, layer, name, score);
}

std::vector<std::string> NodeIds(const v1::Circuit& circuit) {
  std::vector<std::string> ids;
  for (const v1::CircuitNode& node : circuit.nodes()) ids.push_back(node.id());
  return ids;
}

std::map<std::string, double> Edges(const v1::Circuit& circuit) {
  std::map<std::string, double> edges;
  for (const v1::CircuitEdge& edge : circuit.edges()) edges[edge.from() + ">" + edge.to()] = edge.weight();
  return edges;
}

TEST(BuildCircuit, IsEmptyWithoutPositiveScores) {
  EXPECT_EQ(BuildCircuit({}, 12).nodes_size(), 0);
  EXPECT_EQ(BuildCircuit({Head(0, "L0.H0", -0.5), Head(0, "L0.H1", 0)}, 12).nodes_size(), 0);
}

TEST(BuildCircuit, OrdersNodesByTheForwardPass) {
  const v1::Circuit circuit = BuildCircuit(
      {Neurons(1, "L1.N", 0.75), Head(2, "L2.H", 0.5), Head(1, "L1.H", 0.25), Head(0, "L0.H", -0.25)}, 12);
  EXPECT_THAT(NodeIds(circuit), ElementsAre("input", "L1.H", "L1.N", "L2.H", "output"));
  EXPECT_EQ(circuit.nodes(0).kind(), v1::CIRCUIT_NODE_KIND_INPUT);
  EXPECT_EQ(circuit.nodes(1).kind(), v1::CIRCUIT_NODE_KIND_COMPONENT);
  EXPECT_EQ(circuit.nodes(1).component().score(), 0.25);
  EXPECT_EQ(circuit.nodes(4).kind(), v1::CIRCUIT_NODE_KIND_OUTPUT);
}

TEST(BuildCircuit, WeighsEdgesByTheProductOfScoresRelativeToTheLargest) {
  // A chain of two and a head beside the first: attention does not feed
  // attention of its own layer.
  const v1::Circuit circuit =
      BuildCircuit({Head(1, "L1.H0", 1.0), Neurons(1, "L1.N0", 0.5), Head(1, "L1.H1", 0.25)}, 12);
  EXPECT_THAT(Edges(circuit), UnorderedElementsAre(
                                  Pair("input>L1.H0", DoubleEq(1)), Pair("input>L1.H1", DoubleEq(0.25)),
                                  Pair("input>L1.N0", DoubleEq(0.5)), Pair("L1.H0>L1.N0", DoubleEq(0.5)),
                                  Pair("L1.H1>L1.N0", DoubleEq(0.125)), Pair("L1.H0>output", DoubleEq(1)),
                                  Pair("L1.H1>output", DoubleEq(0.25)), Pair("L1.N0>output", DoubleEq(0.5))));
}

TEST(BuildCircuit, TakesTheLeadersOnly) {
  const v1::Circuit circuit = BuildCircuit({Head(3, "a", 0.9), Head(1, "b", 0.8), Head(2, "c", 0.7)}, 2);
  EXPECT_THAT(NodeIds(circuit), ElementsAre("input", "b", "a", "output"));
}

TEST(BuildCircuit, StaysReadableForManyComponents) {
  std::vector<v1::RankedComponent> ranking;
  for (int layer = 0; layer < 30; ++layer) {
    ranking.push_back(Head(layer, absl::StrCat("L", layer), 1.0 - layer / 40.0));
  }
  const v1::Circuit circuit = BuildCircuit(ranking, 30);
  std::map<std::string, int> in;
  std::map<std::string, int> out;
  for (const v1::CircuitEdge& edge : circuit.edges()) {
    ++out[edge.from()];
    ++in[edge.to()];
    EXPECT_GT(edge.weight(), 0);
    EXPECT_LE(edge.weight(), 1);
  }
  for (const v1::CircuitNode& node : circuit.nodes()) {
    // At most two components and the prompt lead in; nobody hangs loose.
    if (node.kind() == v1::CIRCUIT_NODE_KIND_COMPONENT) {
      EXPECT_LE(in[node.id()], 3) << node.id();
      EXPECT_GE(in[node.id()], 1) << node.id();
      EXPECT_GE(out[node.id()], 1) << node.id();
    }
  }
  EXPECT_LE(circuit.edges_size(), 30 * 3 + 3);
}

}  // namespace
}  // namespace mechinterp
