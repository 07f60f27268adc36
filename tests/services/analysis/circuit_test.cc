#include "services/analysis/circuit.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/analysis/studies.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;

std::vector<std::string> NodesOf(const v1::GetCircuitResponse& circuit) {
  std::vector<std::string> names;
  for (const v1::MeasuredNode& node : circuit.nodes()) names.push_back(node.name());
  return names;
}

std::vector<std::string> EdgesOf(const v1::GetCircuitResponse& circuit) {
  std::vector<std::string> names;
  for (const v1::MeasuredEdge& edge : circuit.edges()) {
    names.push_back(absl::StrCat(edge.sender(), ">", edge.receiver()));
  }
  return names;
}

void AddNode(const std::string& name, double noising, v1::CircuitResults& results) {
  v1::MeasuredNode& node = *results.add_nodes();
  node.set_name(name);
  node.set_role(v1::CIRCUIT_ROLE_MEMBER);
  node.mutable_noising()->set_mean(noising);
}

void AddEdge(const std::string& sender, const std::string& receiver, double noising,
             v1::CircuitResults& results) {
  v1::MeasuredEdge& edge = *results.add_edges();
  edge.set_sender(sender);
  edge.set_receiver(receiver);
  edge.mutable_noising()->set_mean(noising);
}

CircuitPlace PlaceOf(std::string_view name) {
  const auto place = ParseCircuitName(name);
  EXPECT_TRUE(place.has_value()) << name;
  return place.value_or(CircuitPlace());
}

TEST(ParseCircuitName, KnowsEveryKindOfEnd) {
  EXPECT_THAT(ParseCircuitName("embed"), Optional(CircuitPlace{PartKind::kEmbed}));
  EXPECT_THAT(ParseCircuitName("final"), Optional(CircuitPlace{PartKind::kFinal}));
  EXPECT_THAT(ParseCircuitName("L2.q3"), Optional(CircuitPlace{PartKind::kQuery, 2, 3}));
  EXPECT_THAT(ParseCircuitName("L2.k0"), Optional(CircuitPlace{PartKind::kKey, 2, 0}));
  EXPECT_THAT(ParseCircuitName("L0.v1"), Optional(CircuitPlace{PartKind::kValue, 0, 1}));
  EXPECT_THAT(ParseCircuitName("L31.H12"), Optional(CircuitPlace{PartKind::kHead, 31, 12}));
  EXPECT_THAT(ParseCircuitName("L4.N317"), Optional(CircuitPlace{PartKind::kNeuron, 4, 317}));
  EXPECT_THAT(ParseCircuitName("L4.mlp"), Optional(CircuitPlace{PartKind::kMlp, 4, 0}));
  EXPECT_THAT(ParseCircuitName("L4.mlp_in"), Optional(CircuitPlace{PartKind::kMlpInput, 4, 0}));
}

TEST(ParseCircuitName, RefusesWhatIsNone) {
  for (const char* name : {"",
                           "L",
                           "L2",
                           "L2.",
                           "L2.H",
                           "L2.H3 ",
                           " L2.H3",
                           "L02.H3",
                           "L2.H03",
                           "L-1.H3",
                           "L+1.H3",
                           "L2.H-3",
                           "L2.Q3",
                           "L2.mlp3",
                           "L2.mlp_out",
                           "2.H3",
                           "L2H3",
                           "L2.H3.H4",
                           "L99999999999.H3",
                           "L2.H99999999999",
                           "Embed",
                           "embed2",
                           "<b>"}) {
    EXPECT_EQ(ParseCircuitName(name), std::nullopt) << name;
  }
}

TEST(Reaches, GoesByTheForwardPass) {
  const auto reaches = [](std::string_view sender, std::string_view receiver) {
    return Reaches(PlaceOf(sender), PlaceOf(receiver));
  };
  EXPECT_TRUE(reaches("embed", "L0.q0"));
  EXPECT_TRUE(reaches("embed", "final"));
  EXPECT_TRUE(reaches("L1.H0", "L1.mlp_in"));
  EXPECT_TRUE(reaches("L1.H0", "L2.v0"));
  EXPECT_TRUE(reaches("L1.mlp", "L2.k0"));
  EXPECT_TRUE(reaches("L9.mlp", "final"));
  EXPECT_FALSE(reaches("L1.H0", "L1.q1"));  // heads of a layer stand side by side
  EXPECT_FALSE(reaches("L1.mlp", "L1.mlp_in"));
  EXPECT_FALSE(reaches("L2.H0", "L1.mlp_in"));
}

TEST(SizeOf, IsTheLargestEffectWhateverItsSign) {
  EXPECT_EQ(SizeOf(FromText<v1::MeasuredNode>("noising { mean: -0.5 } denoising { mean: 0.25 }")), 0.5);
  EXPECT_EQ(SizeOf(FromText<v1::MeasuredNode>("noising { mean: 0.25 } conditional { mean: 0.75 }")), 0.75);
  EXPECT_EQ(SizeOf(FromText<v1::MeasuredEdge>("noising { mean: 0.25 } denoising { mean: -0.5 }")), 0.5);
  const std::string writes = "noising { mean: 0.125 } direct_attribution: -0.25";
  EXPECT_EQ(SizeOf(FromText<v1::MeasuredNode>("role: CIRCUIT_ROLE_DECOY " + writes)), 0.25);
  EXPECT_EQ(SizeOf(FromText<v1::MeasuredNode>("role: CIRCUIT_ROLE_MEMBER " + writes)), 0.125);
}

TEST(CircuitOf, IsEmptyWithoutResults) {
  const v1::GetCircuitResponse circuit = CircuitOf(v1::CircuitResults(), 12, 24);
  EXPECT_EQ(circuit.nodes_size(), 0);
  EXPECT_EQ(circuit.edges_size(), 0);
}

TEST(CircuitOf, TakesTheLargestNodesInTheOrderOfTheForwardPass) {
  v1::CircuitResults results;
  AddNode("L2.H7", 0.5, results);
  AddNode("L0.N9", -0.75, results);
  AddNode("L0.H3", 0.25, results);
  AddNode("L5.H0", 0.125, results);
  EXPECT_THAT(NodesOf(CircuitOf(results, 3, 24)), ElementsAre("L0.H3", "L0.N9", "L2.H7"));
  EXPECT_THAT(NodesOf(CircuitOf(results, 1, 24)), ElementsAre("L0.N9"));
}

TEST(CircuitOf, TakesBackupsAndDecoysAmongThem) {
  v1::CircuitResults results;
  AddNode("L2.H7", 0.25, results);
  *results.add_nodes() = FromText<v1::MeasuredNode>(
      "name: 'L3.H1' role: CIRCUIT_ROLE_BACKUP backs_up: 'L2.H7' conditional { mean: 0.5 }");
  *results.add_nodes() =
      FromText<v1::MeasuredNode>("name: 'L4.H1' role: CIRCUIT_ROLE_DECOY direct_attribution: 0.375");
  const v1::GetCircuitResponse circuit = CircuitOf(results, 2, 24);
  ASSERT_THAT(NodesOf(circuit), ElementsAre("L3.H1", "L4.H1"));
  EXPECT_EQ(circuit.nodes(0).conditional().mean(), 0.5);  // as measured
}

TEST(CircuitOf, TakesTheEdgesBetweenThemLargestFirst) {
  v1::CircuitResults results;
  AddNode("L1.H0", 0.5, results);
  AddNode("L2.H3", 0.5, results);
  AddNode("L2.N4", 0.5, results);
  AddNode("L1.H5", 0.125, results);  // the fourth
  AddEdge("L1.H0", "L2.q3", 0.125, results);
  AddEdge("embed", "L1.q0", 0.25, results);
  AddEdge("L2.mlp", "final", -0.5, results);
  AddEdge("L3.mlp", "final", 0.0625, results);  // of an MLP none of whose neurons is drawn
  AddEdge("L1.H5", "final", 1, results);
  AddEdge("L1.H0", "L2.q2", 1, results);
  EXPECT_THAT(EdgesOf(CircuitOf(results, 3, 24)),
              ElementsAre("L2.mlp>final", "embed>L1.q0", "L1.H0>L2.q3", "L3.mlp>final"));
}

TEST(CircuitOf, LeavesNoHeadLooseThatHasAnEdge) {
  v1::CircuitResults results;
  AddNode("L1.H0", 0.5, results);
  AddNode("L2.H3", 0.5, results);
  for (int layer = 3; layer < 9; ++layer) AddEdge(absl::StrCat("L", layer, ".mlp"), "final", 0.5, results);
  AddEdge("L1.H0", "final", 0.25, results);
  AddEdge("L2.H3", "final", 0.125, results);
  EXPECT_THAT(EdgesOf(CircuitOf(results, 2, 3)), ElementsAre("L3.mlp>final", "L1.H0>final", "L2.H3>final"));
  EXPECT_THAT(EdgesOf(CircuitOf(results, 2, 1)), ElementsAre("L1.H0>final"));
}

TEST(CircuitOf, GivesKeysAndValuesToTheHeadsThatShareThem) {
  v1::CircuitResults results;
  AddNode("L1.H2", 0.5, results);
  AddEdge("embed", "L1.k0", 0.5, results);  // of heads 0 and 1
  AddEdge("embed", "L1.v1", 0.25, results);
  AddEdge("embed", "L2.v1", 0.125, results);
  // Which heads share one is not told: any head of the layer may.
  EXPECT_THAT(EdgesOf(CircuitOf(results, 12, 24)), ElementsAre("embed>L1.k0", "embed>L1.v1"));
  results.set_head_count(4);
  results.set_key_value_head_count(2);
  EXPECT_THAT(EdgesOf(CircuitOf(results, 12, 24)), ElementsAre("embed>L1.v1"));
}

TEST(CircuitOf, LeavesOutWhatHasNoNameAndNoSize) {
  v1::CircuitResults results;
  AddNode("somewhere", 0.5, results);
  AddNode("L1.H0", std::numeric_limits<double>::quiet_NaN(), results);
  AddNode("L1.H1", 0.25, results);
  AddEdge("somewhere", "final", 0.5, results);
  EXPECT_THAT(NodesOf(CircuitOf(results, 1, 24)), ElementsAre("L1.H1"));
  EXPECT_THAT(EdgesOf(CircuitOf(results, 1, 24)), IsEmpty());
}

}  // namespace
}  // namespace mechinterp
