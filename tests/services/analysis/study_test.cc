#include "services/analysis/study.h"

#include <sys/stat.h>

#include <filesystem>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/text_file.h"
#include "tests/services/analysis/studies.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string ViolationsOf(const v1::Study& study) {
  Violations violations;
  CheckStudy(study, "study", violations);
  return std::string(ToStatus(violations).message());
}

TEST(ReadStudy, ReadsTheFilesThatAreThere) {
  const auto study = ReadStudy(ResultsFolder());
  ASSERT_THAT(study, IsOk());
  EXPECT_TRUE(study->has_baseline());
  EXPECT_TRUE(study->has_patching());
  EXPECT_TRUE(study->has_ablation());
  EXPECT_FALSE(study->has_compare());
  EXPECT_TRUE(study->has_circuit());
  EXPECT_EQ(ModelName(*study), "synthetic-8-layer");
  EXPECT_EQ(study->patching().ranking(0).component().name(), "L3.H5");  // planted by make_study.mjs
}

TEST(ReadStudy, LeavesMissingPartsUnset) {
  const ScratchFolder folder;
  const auto study = ReadStudy(folder.File(""));
  ASSERT_THAT(study, IsOk());
  EXPECT_TRUE(IsEmpty(*study));
}

TEST(ReadStudy, NamesWhatItCannotRead) {
  const ScratchFolder folder;
  EXPECT_EQ(ReadStudy(folder.File("nowhere")).status().code(), absl::StatusCode::kNotFound);
  const std::string file = folder.File("01_baseline_results.json");
  for (const std::string content :
       {"", "{\"harmful\": {\"rate\": 0.5", "[]", "{\"harmful\": {\"rate\": \"much\"}}"}) {
    ASSERT_THAT(WriteTextFileAtomically(file, content), IsOk());
    const auto study = ReadStudy(folder.File(""));
    EXPECT_EQ(study.status().code(), absl::StatusCode::kInvalidArgument) << content;
    EXPECT_THAT(std::string(study.status().message()), HasSubstr(file));
  }
  ASSERT_THAT(WriteTextFileAtomically(file, "{\"harmful\": {\"rate\": 1.5}}"), IsOk());
  EXPECT_THAT(std::string(ReadStudy(folder.File("")).status().message()),
              HasSubstr(file + ".harmful: 1.5 is not in [0, 1]"));
}

TEST(ReadStudy, RefusesPipesAndWhatIsTooLong) {
  const ScratchFolder folder;
  const std::string file = folder.File("02_patching_results.json");
  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
  EXPECT_THAT(std::string(ReadStudy(folder.File("")).status().message()),
              AllOf(HasSubstr(file), HasSubstr("not a regular file")));
  std::filesystem::remove(file);
  ASSERT_THAT(WriteTextFileAtomically(file, ""), IsOk());
  std::filesystem::resize_file(file, uint64_t{300} << 20);
  EXPECT_THAT(std::string(ReadStudy(folder.File("")).status().message()),
              AllOf(HasSubstr(file), HasSubstr("314572800 bytes long")));
}

TEST(ReadStudy, RefusesDeepOnesAndQuotesLittle) {
  const ScratchFolder folder;
  const std::string file = folder.File("02_patching_results.json");
  const std::string deep(100'000, '[');
  for (const std::string& content : {deep, "{\"unknown\": " + deep + std::string(deep.size(), ']') + "}",
                                     "{\"effects\": " + deep + std::string(deep.size(), ']') + "}",
                                     "{\"layer_count\": \"" + std::string(1 << 20, 'x') + "\"}"}) {
    ASSERT_THAT(WriteTextFileAtomically(file, content), IsOk());
    const absl::Status status = ReadStudy(folder.File("")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << content.substr(0, 30);
    EXPECT_THAT(std::string(status.message()), HasSubstr(file));
    EXPECT_LT(status.message().size(), 1000u);
  }
}

TEST(CheckStudy, AcceptsSoundStudies) {
  EXPECT_EQ(ViolationsOf(SmallStudy()), "");
  EXPECT_EQ(ViolationsOf(v1::Study()), "");
}

TEST(CheckStudy, ReportsEveryComponentOutsideTheModel) {
  v1::Study study = SmallStudy();
  study.mutable_patching()->mutable_effects(0)->mutable_component()->set_layer(3);
  study.mutable_patching()->mutable_effects(1)->mutable_component()->set_head(2);
  study.mutable_patching()->mutable_effects(2)->mutable_component()->set_neuron_end(9);
  study.mutable_patching()->add_effects();
  EXPECT_THAT(ViolationsOf(study),
              AllOf(HasSubstr("study.patching.effects[0].component.layer: must be below"),
                    HasSubstr("study.patching.effects[1].component.head: must be below"),
                    HasSubstr("study.patching.effects[2].component.neuron_end"),
                    HasSubstr("study.patching.effects[3].component.kind: must be set")));
}

TEST(CheckStudy, BoundsWhatARequestCanAllocate) {
  v1::Study study = SmallStudy();
  study.mutable_patching()->set_layer_count(4'000'000'000u);
  EXPECT_THAT(ViolationsOf(study), HasSubstr("study.patching.layer_count"));
}

TEST(CheckStudy, BoundsHeadsNeuronsAndNames) {
  v1::Study study = SmallStudy();
  v1::PatchingResults& patching = *study.mutable_patching();
  patching.set_head_count(4'000'000'000u);
  patching.set_neuron_count(4'000'000'000u);
  patching.mutable_effects(2)->mutable_component()->set_neuron_begin(4'000'000'000u);
  patching.mutable_effects(2)->mutable_component()->set_neuron_end(4'000'000'000u);
  patching.mutable_effects(1)->mutable_component()->set_name(std::string(1001, 'x'));
  EXPECT_THAT(ViolationsOf(study),
              AllOf(HasSubstr("study.patching.head_count: 4000000000 is above 65536"),
                    HasSubstr("study.patching.neuron_count: 4000000000 is above 16777216"),
                    HasSubstr("study.patching.head_count: 4000000000 in 3 layers are more than"),
                    HasSubstr("study.patching.effects[2].component.neuron_begin: must be below neuron_end"),
                    HasSubstr("study.patching.effects[1].component.name: must have at most 1000 bytes")));
}

TEST(CheckStudy, ReportsRatesThatAreNone) {
  v1::Study study = FromText<v1::Study>(R"pb(
    ablation {
      curves {
        top { harmful { success_count: 3 total_count: 2 } }
        random { harmless { rate: nan } }
      }
    })pb");
  EXPECT_THAT(ViolationsOf(study),
              AllOf(HasSubstr("study.ablation.curves[0].top[0].harmful: 3 successes of 2"),
                    HasSubstr("study.ablation.curves[0].random[0].harmless: nan")));
}

TEST(CheckStudy, ReportsNodesOfACircuitThatAreNone) {
  v1::Study study;
  for (const char* node :
       {"name: 'L1.H0' role: CIRCUIT_ROLE_MEMBER layer: 1 head: 0",  // a sound one
        "name: '<b>' role: CIRCUIT_ROLE_MEMBER", "name: 'L1.mlp' role: CIRCUIT_ROLE_MEMBER layer: 1",
        "name: 'L1.H0' role: CIRCUIT_ROLE_MEMBER layer: 2 head: 0",
        "name: 'L1.H0' role: CIRCUIT_ROLE_MEMBER layer: 1 neuron: 0",
        "name: 'L10000.H0' role: CIRCUIT_ROLE_MEMBER layer: 10000 head: 0"}) {
    *study.mutable_circuit()->add_nodes() = FromText<v1::MeasuredNode>(node);
  }
  const std::string violations = ViolationsOf(study);
  EXPECT_THAT(violations, Not(HasSubstr("study.circuit.nodes[0]")));
  EXPECT_THAT(violations, AllOf(HasSubstr("study.circuit.nodes[1].name: must be the name of a head"),
                                HasSubstr("study.circuit.nodes[2].name: must be the name of a head"),
                                HasSubstr("study.circuit.nodes[3].name: must be the name of its layer"),
                                HasSubstr("study.circuit.nodes[4].name: must be the name of its layer"),
                                HasSubstr("study.circuit.nodes[5].name: must be the name of a head")));
}

TEST(CheckStudy, ReportsWhatANodeOfACircuitWasNotMeasuredToDo) {
  const auto study = FromText<v1::Study>(R"pb(
    circuit {
      nodes {
        name: "L1.N2"
        layer: 1
        neuron: 2
        p_value: 1.5
        noising { mean: inf }
        denoising { upper: nan }
        backs_up: "L1.H0"
        backs_up: "embed"
      }
    })pb");
  EXPECT_THAT(ViolationsOf(study), AllOf(HasSubstr("study.circuit.nodes[0].role: must be set"),
                                         HasSubstr("study.circuit.nodes[0].p_value: 1.5 is not in [0, 1]"),
                                         HasSubstr("study.circuit.nodes[0].noising: inf is no effect"),
                                         HasSubstr("study.circuit.nodes[0].denoising: nan is no effect"),
                                         HasSubstr("study.circuit.nodes[0].backs_up[1]: must be the name")));
}

TEST(CheckStudy, ReportsEdgesOfACircuitThatAreNone) {
  v1::Study study;
  for (const char* edge :
       {"sender: 'embed' receiver: 'final'",  // a sound one
        "sender: 'L1.N3' receiver: 'final'", "sender: 'L1.H0' receiver: 'L2.H0'",
        "sender: 'L2.H0' receiver: 'L2.q1'", "sender: 'L1.H99999' receiver: 'final'",
        "sender: 'embed' receiver: 'L10000.mlp_in'",
        "sender: 'embed' receiver: 'final' p_value: -1 noising { lower: nan } conditional_on: 'x'"}) {
    *study.mutable_circuit()->add_edges() = FromText<v1::MeasuredEdge>(edge);
  }
  const std::string violations = ViolationsOf(study);
  EXPECT_THAT(violations, Not(HasSubstr("study.circuit.edges[0]")));
  EXPECT_THAT(violations, AllOf(HasSubstr("study.circuit.edges[1].sender: must be"),
                                HasSubstr("study.circuit.edges[2].receiver: must be"),
                                HasSubstr("study.circuit.edges[3].receiver: must come after the sender"),
                                HasSubstr("study.circuit.edges[4].sender: must be"),
                                HasSubstr("study.circuit.edges[5].receiver: must be")));
  EXPECT_THAT(violations, AllOf(HasSubstr("study.circuit.edges[6].p_value: -1 is not in [0, 1]"),
                                HasSubstr("study.circuit.edges[6].noising: nan is no effect"),
                                HasSubstr("study.circuit.edges[6].conditional_on[0]: must be the name")));
}

TEST(CheckStudy, ReportsSharesOfACircuitThatAreNone) {
  const auto study = FromText<v1::Study>(R"pb(
    circuit {
      parameter_share: 1.5
      edge_curve {
        points { share: 0 }
        points {
          share: 0.5
          faithfulness { mean: nan }
        }
      }
      node_curve { points { share: 2 } }
      neuron_curve { points { share: nan } }
    })pb");
  EXPECT_THAT(ViolationsOf(study),
              AllOf(HasSubstr("study.circuit.parameter_share: 1.5 is not in [0, 1]"),
                    HasSubstr("study.circuit.edge_curve.points[0].share: 0 is not in (0, 1]"),
                    HasSubstr("study.circuit.edge_curve.points[1].faithfulness: nan is no effect"),
                    HasSubstr("study.circuit.node_curve.points[0].share: 2 is not in (0, 1]"),
                    HasSubstr("study.circuit.neuron_curve.points[0].share: nan is not in (0, 1]")));
}

TEST(CheckStudy, BoundsWhatACircuitHolds) {
  v1::Study study;
  v1::CircuitResults& circuit = *study.mutable_circuit();
  circuit.set_head_count(8);
  circuit.set_key_value_head_count(3);
  v1::MeasuredEdge& edge = *circuit.add_edges();
  edge.set_sender("embed");
  edge.set_receiver("final");
  for (int i = 0; i < 65; ++i) edge.add_conditional_on("L0.H0");
  v1::MemberDrop& drop = *circuit.add_minimality();
  drop.set_name("L1");
  drop.mutable_drop()->set_mean(std::numeric_limits<double>::infinity());
  for (int i = 0; i < 1001; ++i) circuit.mutable_edge_curve()->add_points()->set_share(0.5);
  for (int i = 0; i < 1001; ++i) circuit.mutable_head_agreement()->add_missed_leaders();
  EXPECT_THAT(ViolationsOf(study),
              AllOf(HasSubstr("study.circuit.key_value_head_count: must divide head_count, 8"),
                    HasSubstr("study.circuit.edges[0].conditional_on: 65 of them are more than 64"),
                    HasSubstr("study.circuit.minimality[0].name: must be the name of a head"),
                    HasSubstr("study.circuit.minimality[0].drop: inf is no effect"),
                    HasSubstr("study.circuit.edge_curve.points: 1001 of them are more than 1000"),
                    HasSubstr("study.circuit.head_agreement.missed_leaders: 1001 of them are more than")));
}

TEST(CheckStudy, ReportsRankingsAndLayersOfAnotherModel) {
  v1::Study study = SmallStudy();
  study.mutable_patching()->add_ranking()->mutable_component()->set_layer(3);
  study.mutable_patching()->add_layers();
  EXPECT_THAT(ViolationsOf(study),
              AllOf(HasSubstr("study.patching.ranking[0].component.layer: must be below layer_count, 3"),
                    HasSubstr("study.patching.layers: must be empty or as many as layer_count, 3")));
}

}  // namespace
}  // namespace mechinterp
