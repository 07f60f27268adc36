// RunAttribution over gRPC: what is returned, in which form, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "services/common/status.h"
#include "services/engine/operations/attribution.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// What a stream told of one pair.
struct OfPair {
  v1::AttributedPair pair;
  std::map<std::string, std::vector<float>> tensors;
  std::vector<v1::AttributionScore> scores;
  std::vector<v1::AttributionEdge> edges;
};

struct Attributed {
  grpc::Status status;
  v1::AttributionHeader header;
  std::vector<OfPair> pairs;
  bool ended = false;
};

class AttributionRpc : public testing::Test {
 protected:
  static constexpr char kTokens[] =
      "metrics { refusal_token_ids: [5, 9, 11] compliance_token_ids: [20, 31] } ";

  Attributed Run(const v1::RunAttributionRequest& request) {
    grpc::ClientContext context;
    const auto reader = service_.stub().RunAttribution(&context, request);
    Attributed result;
    v1::RunAttributionResponse message;
    while (reader->Read(&message)) {
      if (message.has_header()) result.header = message.header();
      if (message.has_pair()) {
        result.pairs.push_back({message.pair(), {}, {}, {}});
        for (const v1::ActivationInfo& info : message.pair().tensors()) {
          result.pairs.back().tensors[info.name()].resize(info.byte_count() / sizeof(float));
        }
      }
      if (message.has_chunk()) {
        OfPair& pair = result.pairs.back();
        const std::string& name =
            pair.pair.tensors(static_cast<int>(message.chunk().activation_index())).name();
        std::memcpy(reinterpret_cast<char*>(pair.tensors.at(name).data()) + message.chunk().offset_bytes(),
                    message.chunk().data().data(), message.chunk().data().size());
      }
      for (const v1::AttributionScore& score : message.scores().scores()) {
        result.pairs.back().scores.push_back(score);
      }
      for (const v1::AttributionEdge& edge : message.scores().edges())
        result.pairs.back().edges.push_back(edge);
      result.ended |= message.has_summary();
    }
    result.status = reader->Finish();
    return result;
  }

  // A request for one pair of the fixture's prompts, of one length, with `text` in it.
  v1::RunAttributionRequest Request(const std::string& text) {
    auto request = Parse<v1::RunAttributionRequest>(text);
    if (request.pairs().empty()) *request.add_pairs() = Pair(8, 8);
    return request;
  }
  static v1::AttributionPair Pair(int length, int source_length) {
    v1::AttributionPair pair;
    for (int i = 0; i < length; ++i) pair.mutable_prompt()->mutable_token_ids()->add_ids(7 * i + 3);
    for (int i = 0; i < source_length; ++i)
      pair.mutable_source_prompt()->mutable_token_ids()->add_ids(5 * i + 4);
    return pair;
  }
  engine::Attribution Expected(const v1::RunAttributionRequest& request, const std::string& site,
                               bool edges = false) {
    engine::AttributionRequest direct;
    for (uint32_t id : request.pairs(0).prompt().token_ids().ids()) direct.clean.ids.push_back(id);
    for (uint32_t id : request.pairs(0).source_prompt().token_ids().ids()) direct.source.ids.push_back(id);
    direct.tokens.refusal_token_ids = {5, 9, 11};
    direct.tokens.compliance_token_ids = {20, 31};
    direct.sites = engine::MatchingSites(site, fixture_.model()->config());
    direct.with_gradients = true;
    direct.edges = edges;
    engine::DirectExecutor executor(fixture_.model());
    engine::RunContext context{executor, {}, {}};
    return *engine::Attribute(context, direct);
  }

  std::vector<std::string> FieldsAtFault(const std::string& text) {
    return mechinterp::FieldsAtFault(Run(Request(text)).status);
  }

  engine::Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
};

TEST_F(AttributionRpc, ReturnsScoresAsTensors) {
  const auto request = Request(std::string(kTokens) + "filter { name_patterns: 'blocks.*.attn.hook_z' }");
  const Attributed result = Run(request);
  ASSERT_THAT(result.status, IsOk());
  EXPECT_TRUE(result.ended);
  ASSERT_THAT(result.pairs, SizeIs(1));
  const engine::Attribution expected = Expected(request, "blocks.*.attn.hook_z");
  EXPECT_EQ(result.pairs[0].pair.metric(), expected.clean_metric);
  EXPECT_EQ(result.pairs[0].pair.source_metric(), expected.source_metric);
  ASSERT_EQ(result.pairs[0].tensors.size(), 4u);
  EXPECT_THAT(result.pairs[0].pair.tensors(0).shape(), ElementsAre(8, 8));
  for (const auto& [site, scores] : expected.scores) {
    EXPECT_EQ(result.pairs[0].tensors.at(engine::SiteName(site)), scores.values);
  }
}

TEST_F(AttributionRpc, SumsAndSelectsPositions) {
  const auto request = Request(std::string(kTokens) +
                               "filter { sites { point: HOOK_POINT_MLP_POST layer: 2 } "
                               "positions { indices: [1, -1] } } sum_positions: true");
  const Attributed result = Run(request);
  ASSERT_THAT(result.status, IsOk());
  const engine::HostTensor scores = Expected(request, "blocks.2.mlp.hook_post").scores.begin()->second;
  const std::vector<float>& ours = result.pairs.at(0).tensors.at("blocks.2.mlp.hook_post");
  ASSERT_EQ(ours.size(), 176u);
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_FLOAT_EQ(ours[i], scores.values[176 + i] + scores.values[7 * 176 + i]);
  }
}

TEST_F(AttributionRpc, ReturnsTheLargest) {
  const auto request =
      Request(std::string(kTokens) + "filter { name_patterns: 'blocks.*.mlp.hook_post' } top_count: 10");
  const Attributed result = Run(request);
  ASSERT_THAT(result.status, IsOk());
  EXPECT_THAT(result.pairs.at(0).tensors, IsEmpty());
  ASSERT_THAT(result.pairs[0].scores, SizeIs(10));
  std::vector<float> all;
  std::map<uint32_t, engine::HostTensor> of_layer;
  for (const auto& [site, scores] : Expected(request, "blocks.*.mlp.hook_post").scores) {
    of_layer[static_cast<uint32_t>(site.layer)] = scores;
    all.insert(all.end(), scores.values.begin(), scores.values.end());
  }
  std::sort(all.begin(), all.end(), [](float a, float b) { return std::abs(a) > std::abs(b); });
  for (int i = 0; i < 10; ++i) {
    const v1::AttributionScore& score = result.pairs[0].scores[i];
    EXPECT_EQ(std::abs(score.score()), std::abs(all[i]));
    EXPECT_EQ(score.score(), of_layer[score.site().layer()].values[score.position() * 176 + score.node()]);
  }
}

TEST_F(AttributionRpc, ReturnsGradients) {
  const auto request = Request(std::string(kTokens) +
                               "filter { name_patterns: 'blocks.1.hook_resid_pre' "
                               "name_patterns: 'blocks.1.attn.hook_k' } return_gradients: true");
  const Attributed result = Run(request);
  ASSERT_THAT(result.status, IsOk());
  EXPECT_THAT(result.pairs.at(0).pair.tensors(0).shape(), ElementsAre(8, 64));
  EXPECT_THAT(result.pairs[0].pair.tensors(1).shape(), ElementsAre(8, 2, 8));
  for (const char* name : {"blocks.1.hook_resid_pre", "blocks.1.attn.hook_k"}) {
    EXPECT_EQ(result.pairs[0].tensors.at(name),
              Expected(request, name).gradients.begin()->second.values.values);
  }
}

TEST_F(AttributionRpc, ReturnsTheLargestEdges) {
  const auto request = Request(std::string(kTokens) + "edges: true top_count: 12");
  const Attributed result = Run(request);
  ASSERT_THAT(result.status, IsOk());
  ASSERT_THAT(result.pairs.at(0).edges, SizeIs(12));
  EXPECT_THAT(result.pairs[0].scores, IsEmpty());
  const auto scores = Expected(request, "hook_embed", /*edges=*/true).edges;
  const engine::ModelConfig& config = fixture_.model()->config();
  const auto senders = engine::Senders(config);
  const auto receivers = engine::Receivers(config);
  std::map<std::string, float> expected;
  std::vector<float> sizes;
  for (size_t r = 0; r < scores.size(); ++r) {
    for (size_t s = 0; s < scores[r].size(); ++s) {
      expected[engine::NameOf(senders[s]) + "->" + engine::NameOf(receivers[r])] = scores[r][s];
      sizes.push_back(std::abs(scores[r][s]));
    }
  }
  std::sort(sizes.rbegin(), sizes.rend());
  for (int i = 0; i < 12; ++i) {
    const v1::AttributionEdge& edge = result.pairs[0].edges[i];
    EXPECT_EQ(std::abs(edge.score()), sizes[i]);
    EXPECT_EQ(edge.score(), expected.at(edge.name()));
    EXPECT_EQ(edge.has_sender_head(), edge.sender().point() == v1::HOOK_POINT_RESULT);
  }
}

// Each pair is as it would be alone; interventions are in force in the prompt's run.
TEST_F(AttributionRpc, TakesManyPairsAndInterventions) {
  const std::string text = std::string(kTokens) +
                           "filter { name_patterns: 'hook_embed' } interventions { site { point: "
                           "HOOK_POINT_MLP_OUT layer: 3 } zeroing {} }";
  auto request = Request(text);
  *request.add_pairs() = Pair(5, 9);
  const Attributed both = Run(request);
  ASSERT_THAT(both.status, IsOk());
  ASSERT_THAT(both.pairs, SizeIs(2));
  EXPECT_EQ(both.header.pair_count(), 2u);
  auto second = Request(text);
  *second.mutable_pairs(0) = Pair(5, 9);
  const Attributed alone = Run(second);
  EXPECT_EQ(both.pairs[1].tensors, alone.pairs.at(0).tensors);
  second.clear_interventions();
  const Attributed plain = Run(second);
  EXPECT_NE(plain.pairs.at(0).tensors, alone.pairs[0].tensors);
  EXPECT_NE(plain.pairs[0].pair.metric(), alone.pairs[0].pair.metric());
}

TEST_F(AttributionRpc, NamesTheFieldsAtFault) {
  const std::string tokens = kTokens, filter = "filter { name_patterns: 'hook_embed' } ";
  EXPECT_THAT(FieldsAtFault(filter),
              ElementsAre("metrics.compliance_token_ids", "metrics.refusal_token_ids"));
  EXPECT_THAT(FieldsAtFault(filter + "metric: ATTRIBUTION_METRIC_KL_FROM_CLEAN"), ElementsAre("metric"));
  EXPECT_THAT(FieldsAtFault(tokens), ElementsAre("filter"));
  EXPECT_THAT(FieldsAtFault(tokens + "filter { sites { point: HOOK_POINT_PATTERN } }"),
              ElementsAre("filter.sites[0]"));
  EXPECT_THAT(FieldsAtFault(tokens + "filter { name_patterns: 'logits' }"), ElementsAre("filter"));
  EXPECT_THAT(FieldsAtFault(tokens + "filter { sites { point: HOOK_POINT_Z layer: 4 } }"),
              ElementsAre("filter.sites[0].layer"));
  EXPECT_THAT(FieldsAtFault(tokens + filter + "steps: 5"), ElementsAre("steps"));
  EXPECT_THAT(FieldsAtFault(tokens + filter + "method: ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS steps: 65"),
              ElementsAre("steps"));
  EXPECT_THAT(FieldsAtFault(tokens + filter + "method: 77"), ElementsAre("method"));
  EXPECT_THAT(FieldsAtFault(tokens + filter + "top_count: 2000001"), ElementsAre("top_count"));
  EXPECT_THAT(FieldsAtFault(tokens + filter + "top_count: 1 return_gradients: true"),
              ElementsAre("return_gradients"));
  EXPECT_THAT(
      FieldsAtFault(tokens + filter +
                    "method: ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS pairs { prompt { token_ids { ids: [1, "
                    "2] } } source_prompt { token_ids { ids: [1, 2, 3] } } }"),
      ElementsAre("pairs[0].source_prompt"));
  EXPECT_THAT(FieldsAtFault(tokens + filter + "pairs { prompt { token_ids { ids: [1, 2] } } }"),
              ElementsAre("pairs[0].source_prompt"));
  const std::string pair =
      "pairs { prompt { token_ids { ids: [1, 2] } } source_prompt { token_ids { ids: [3, 4] } } } ";
  EXPECT_THAT(FieldsAtFault(tokens + filter + pair + pair + pair +
                            "interventions { site { point: HOOK_POINT_Z layer: 4 } zeroing {} }"),
              ElementsAre("interventions[0].site.layer"));
  EXPECT_THAT(FieldsAtFault(tokens + filter + "exact_softmax: true"), ElementsAre("exact_softmax"));
  for (const char* point : {"ROT_Q", "ROT_K", "ATTN_SCORES", "PATTERN"}) {
    const auto edit = [&](int layer) {
      return tokens + "exact_softmax: true filter { name_patterns: 'blocks.1.attn.hook_k' } " +
             "interventions { site { point: HOOK_POINT_" + point + " layer: " + std::to_string(layer) +
             " } zeroing {} }";
    };
    EXPECT_THAT(FieldsAtFault(edit(1)), ElementsAre("interventions[0].site"));
    EXPECT_THAT(Run(Request(edit(0))).status, IsOk());
  }
  EXPECT_THAT(FieldsAtFault(tokens + "edges: true"), ElementsAre("top_count"));
  EXPECT_THAT(FieldsAtFault(tokens + filter + "edges: true top_count: 1"), ElementsAre("filter"));
  EXPECT_THAT(FieldsAtFault(tokens + "edges: true top_count: 1 method: ATTRIBUTION_METHOD_GRAD_DROP"),
              ElementsAre("edges"));
  EXPECT_THAT(FieldsAtFault("metrics { refusal_token_ids: [5] compliance_token_ids: [999999] } " + filter),
              ElementsAre("metrics.compliance_token_ids[0]"));
}

// Of a single opening of one token, its log-probability's gradient: that of a continuation that begins so.
TEST_F(AttributionRpc, OfOpenings) {
  const Attributed result =
      Run(Request("metric: ATTRIBUTION_METRIC_OPENINGS metrics { refusal_openings { ids: [5, 9] } "
                  "refusal_openings { ids: 7 } } "
                  "filter { name_patterns: 'blocks.*.attn.hook_z' }"));
  ASSERT_THAT(result.status, IsOk());
  auto sweep = Parse<v1::RunPatchSweepRequest>(
      "metrics { refusal_openings { ids: [5, 9] } refusal_openings { ids: 7 } } sets { }");
  *sweep.mutable_prompt() = Pair(8, 8).prompt();
  *sweep.mutable_source_prompt() = Pair(8, 8).source_prompt();
  const auto measured = service_.Sweep(sweep);
  ASSERT_THAT(measured.status, IsOk());
  EXPECT_EQ(result.pairs[0].pair.metric(), measured.header.clean().refusal_opening_log_probability());
  EXPECT_EQ(result.pairs[0].pair.source_metric(), measured.header.source().refusal_opening_log_probability());
  EXPECT_THAT(result.pairs[0].tensors, SizeIs(4));

  const std::string filter = "filter { name_patterns: 'blocks.*.attn.hook_z' } ";
  EXPECT_THAT(FieldsAtFault("metric: ATTRIBUTION_METRIC_OPENINGS " + filter),
              ElementsAre("metrics.refusal_openings"));
  EXPECT_THAT(
      FieldsAtFault("metrics { refusal_token_ids: 5 compliance_token_ids: 20 refusal_openings { ids: 1 } } " +
                    filter),
      ElementsAre("metrics.refusal_openings"));
  EXPECT_THAT(FieldsAtFault("metric: ATTRIBUTION_METRIC_OPENINGS metrics { refusal_openings { ids: 1 } } "
                            "method: ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS " +
                            filter),
              ElementsAre("metric"));
}

}  // namespace
}  // namespace mechinterp
