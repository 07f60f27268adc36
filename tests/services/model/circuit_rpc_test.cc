// RunCircuit over gRPC, sweeps on a base, and what they refuse.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/services/engine/fixture.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

struct Circuits {
  grpc::Status status;
  v1::CircuitHeader header;
  std::vector<v1::CircuitResult> results;
  bool ended = false;
};

class CircuitRpc : public testing::Test {
 protected:
  static constexpr char kMetrics[] = "metrics { refusal_token_ids: [5, 9] compliance_token_ids: [20] } ";

  // Of the fixture's prompts, of one length, with `text` in it.
  v1::RunCircuitRequest Request(const std::string& text) {
    auto request = Parse<v1::RunCircuitRequest>(
        text.find("metrics") != std::string::npos ? text : std::string(kMetrics) + text);
    if (request.has_prompt()) return request;
    for (uint32_t i = 0; i < 8; ++i) {
      request.mutable_prompt()->mutable_token_ids()->add_ids(7 * i + 3);
      request.mutable_source_prompt()->mutable_token_ids()->add_ids(5 * i + 4);
    }
    return request;
  }

  Circuits Run(const v1::RunCircuitRequest& request) {
    grpc::ClientContext context;
    const auto reader = service_.stub().RunCircuit(&context, request);
    Circuits circuits;
    v1::RunCircuitResponse message;
    while (reader->Read(&message)) {
      if (message.has_header()) circuits.header = message.header();
      if (message.has_result()) circuits.results.push_back(message.result());
      circuits.ended |= message.has_summary();
    }
    circuits.status = reader->Finish();
    return circuits;
  }

  std::vector<std::string> FaultsOf(const std::string& text) {
    std::vector<std::string> faults;
    for (const auto& [field, description] : ViolationsOf(Run(Request(text)).status)) {
      faults.push_back(field + ": " + description);
    }
    return faults;
  }

  engine::Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
};

TEST_F(CircuitRpc, EvaluatesLeadingMembersAndComplements) {
  const Circuits circuits =
      Run(Request("edges: ['embed->L0.q0', 'embed->final', 'L0.mlp->L2.k1', 'L1.H3->final'] "
                  "circuits { leading: 2 } circuits { members: [0, 1] } circuits { } "
                  "circuits { leading: 4 except: [2, 3] } circuits { complement: true } "
                  "circuits { leading: 4 complement: true }"));
  ASSERT_THAT(circuits.status, IsOk());
  EXPECT_TRUE(circuits.ended);
  EXPECT_EQ(circuits.header.circuit_count(), 6);
  EXPECT_THAT(circuits.header.prompt_token_ids(), SizeIs(8));
  ASSERT_THAT(circuits.results, SizeIs(6));
  for (uint32_t i = 0; i < 6; ++i) EXPECT_EQ(circuits.results[i].circuit_index(), i);
  // The same circuit, said in three ways: the same bits.
  const double first = circuits.results[0].metrics().logit_difference();
  EXPECT_EQ(circuits.results[1].metrics().logit_difference(), first);
  EXPECT_EQ(circuits.results[3].metrics().logit_difference(), first);
  EXPECT_EQ(circuits.results[0].edge_count(), 2);
  EXPECT_NEAR(circuits.results[2].faithfulness(), 0, 1e-4);
  EXPECT_NEAR(circuits.results[2].metrics().logit_difference(), circuits.header.source().logit_difference(),
              1e-5);
  EXPECT_NEAR(circuits.results[4].faithfulness(), 1, 1e-4);
  EXPECT_EQ(circuits.results[4].edge_count() - circuits.results[5].edge_count(), 4);
}

TEST_F(CircuitRpc, OfAllNodesIsTheModel) {
  const Circuits circuits =
      Run(Request("nodes: ['L0.H0', 'L2.N17', 'L1.mlp'] circuits { complement: true } "
                  "circuits { leading: 3 }"));
  ASSERT_THAT(circuits.status, IsOk());
  EXPECT_NEAR(circuits.results[0].metrics().logit_difference(), circuits.header.clean().logit_difference(),
              1e-5);
  EXPECT_NEAR(circuits.results[0].metrics().kl_from_clean(), 0, 1e-6);
}

TEST_F(CircuitRpc, RefusesByField) {
  EXPECT_THAT(FaultsOf("circuits { }"), ElementsAre("edges: exactly one of edges and nodes must be given"));
  EXPECT_THAT(FaultsOf("edges: 'embed->final' nodes: 'L0.H0' circuits { }"), SizeIs(1));
  EXPECT_THAT(FaultsOf("edges: 'embed->final'"), ElementsAre("circuits: must be 1 to 10000"));
  EXPECT_THAT(FaultsOf("edges: ['embed->final', 'L3.H0->L1.q0', 'x'] circuits { }"),
              ElementsAre("edges[1]: L1.q0 comes before L3.H0"));
  EXPECT_THAT(FaultsOf("edges: 'L9.H0->final' circuits { }"), ElementsAre(HasSubstr("edges[0]: \"L9.H0\"")));
  EXPECT_THAT(FaultsOf("nodes: ['L0.H0', 'L0.H0'] circuits { }"),
              ElementsAre("nodes[1]: L0.H0 is listed twice"));
  EXPECT_THAT(FaultsOf("nodes: 'L0.H8' circuits { }"),
              ElementsAre(HasSubstr("nodes[0]: \"L0.H8\" is no node")));
  EXPECT_THAT(FaultsOf("nodes: 'L0.H0' circuits { leading: 2 }"),
              ElementsAre("circuits[0].leading: must be at most 1"));
  EXPECT_THAT(FaultsOf("nodes: 'L0.H0' circuits { members: 1 }"),
              ElementsAre("circuits[0].members[0]: 1 is not in [0, 1)"));
  EXPECT_THAT(
      FaultsOf("prompt { token_ids { ids: [1, 2] } } source_prompt { token_ids { ids: 1 } } nodes: 'L0.H0' "
               "circuits { }"),
      ElementsAre(HasSubstr("source_prompt: has 1 tokens, the prompt 2")));
  EXPECT_THAT(FaultsOf("metrics { refusal_openings { ids: 1 } } nodes: 'L0.H0' circuits { }"),
              ElementsAre("metrics.refusal_openings: must be empty here"));
}

TEST_F(CircuitRpc, ASweepsBaseIsInForceInEveryRun) {
  auto request = Parse<v1::RunPatchSweepRequest>(
      "metrics { refusal_token_ids: 5 compliance_token_ids: 20 } sets { } "
      "sets { interventions { site { point: HOOK_POINT_Z layer: 2 } zeroing { } } } "
      "base { interventions { site { point: HOOK_POINT_MLP_OUT layer: 1 } zeroing { } } }");
  for (uint32_t i = 0; i < 6; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(i + 3);
  const auto swept = service_.Sweep(request);
  ASSERT_THAT(swept.status, IsOk());
  EXPECT_EQ(swept.results.at(0).metrics().logit_difference(), swept.header.clean().logit_difference());

  auto alone = Parse<v1::RunPatchSweepRequest>(
      "metrics { refusal_token_ids: 5 compliance_token_ids: 20 } "
      "sets { interventions { site { point: HOOK_POINT_MLP_OUT layer: 1 } zeroing { } } } "
      "sets { interventions { site { point: HOOK_POINT_MLP_OUT layer: 1 } zeroing { } } "
      "       interventions { site { point: HOOK_POINT_Z layer: 2 } zeroing { } } }");
  *alone.mutable_prompt() = request.prompt();
  const auto expected = service_.Sweep(alone);
  ASSERT_THAT(expected.status, IsOk());
  EXPECT_EQ(swept.header.clean().logit_difference(), expected.results.at(0).metrics().logit_difference());
  EXPECT_EQ(swept.results.at(1).metrics().logit_difference(),
            expected.results.at(1).metrics().logit_difference());

  request.mutable_base()->mutable_interventions(0)->mutable_site()->set_layer(9);
  const auto refused = service_.Sweep(request);
  EXPECT_THAT(std::string(refused.status.error_message()), HasSubstr("base.interventions[0].site"));
}

}  // namespace
}  // namespace mechinterp
