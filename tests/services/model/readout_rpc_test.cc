// RunReadout over gRPC: what is returned, in which form, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/common/status.h"
#include "services/engine/operations/direct_attribution.h"
#include "services/engine/operations/logit_lens.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// What a stream told of one prompt.
struct OfPrompt {
  v1::ReadoutPrompt prompt;
  std::vector<v1::LensReading> readings;
  std::vector<v1::ReadoutPosition> positions;
  std::vector<std::vector<v1::DirectContribution>> contributions;  // of each position
};

struct ReadOut {
  grpc::Status status;
  v1::ReadoutHeader header;
  std::vector<OfPrompt> prompts;
  size_t largest_message = 0;
  int pieces = 0;
  bool ended = false;
};

class ReadoutRpc : public testing::Test {
 protected:
  static constexpr char kTokens[] =
      "metrics { refusal_token_ids: [5, 9, 11] compliance_token_ids: [20, 31] } ";

  ReadOut Run(const v1::RunReadoutRequest& request) {
    grpc::ClientContext context;
    const auto reader = service_.stub().RunReadout(&context, request);
    ReadOut result;
    v1::RunReadoutResponse message;
    while (reader->Read(&message)) {
      result.largest_message = std::max(result.largest_message, message.ByteSizeLong());
      if (message.has_header()) result.header = message.header();
      if (message.has_prompt()) result.prompts.push_back({message.prompt(), {}, {}, {}});
      if (message.has_position()) {
        result.prompts.back().positions.push_back(message.position());
        result.prompts.back().contributions.emplace_back();
      }
      result.pieces += message.has_piece() ? 1 : 0;
      for (const auto& reading : message.piece().readings())
        result.prompts.back().readings.push_back(reading);
      for (const auto& contribution : message.piece().contributions()) {
        result.prompts.back().contributions.back().push_back(contribution);
      }
      result.ended |= message.has_summary();
    }
    result.status = reader->Finish();
    return result;
  }

  // A request for one prompt, with `text` in it.
  static v1::RunReadoutRequest Request(const std::string& text) {
    auto request = Parse<v1::RunReadoutRequest>(text);
    if (request.prompts().empty()) *request.add_prompts() = Prompt(8);
    return request;
  }
  static v1::Prompt Prompt(int length) {
    v1::Prompt prompt;
    for (int i = 0; i < length; ++i) prompt.mutable_token_ids()->add_ids(7 * i + 3);
    return prompt;
  }
  static engine::TokenizedPrompt EnginePrompt(int length) {
    engine::TokenizedPrompt prompt;
    for (int i = 0; i < length; ++i) prompt.ids.push_back(7 * i + 3);
    return prompt;
  }

  std::vector<engine::LensReading> ExpectedLens(int length, std::vector<int> positions) {
    engine::LensRequest request;
    request.prompt = EnginePrompt(length);
    request.positions = std::move(positions);
    request.metrics.refusal_token_ids = {5, 9, 11};
    request.metrics.compliance_token_ids = {20, 31};
    request.metrics.top_token_count = 3;
    std::vector<engine::LensReading> readings;
    EXPECT_THAT(engine::RunLogitLens(context_, request,
                                     [&](const engine::LensReading& reading) {
                                       readings.push_back(reading);
                                       return absl::OkStatus();
                                     }),
                IsOk());
    return readings;
  }

  std::vector<std::string> FieldsAtFault(const std::string& text) {
    return mechinterp::FieldsAtFault(Run(Request(text)).status);
  }

  engine::Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
  engine::DirectExecutor executor_{fixture_.model()};
  engine::RunContext context_{executor_, {}, {}};
};

TEST_F(ReadoutRpc, ReturnsTheLensOfTheLastPosition) {
  const ReadOut result = Run(
      Request("metrics { refusal_token_ids: [5, 9, 11] compliance_token_ids: [20, 31] top_token_count: 3 } "
              "logit_lens {}"));
  ASSERT_THAT(result.status, IsOk());
  EXPECT_TRUE(result.ended);
  EXPECT_EQ(result.header.prompt_count(), 1u);
  ASSERT_THAT(result.prompts, SizeIs(1));
  EXPECT_THAT(result.prompts[0].prompt.prompt_token_ids(), SizeIs(8));
  EXPECT_THAT(result.prompts[0].prompt.prompt_pieces(), SizeIs(8));
  const std::vector<engine::LensReading> expected = ExpectedLens(8, {7});
  ASSERT_EQ(result.prompts[0].readings.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const v1::LensReading& reading = result.prompts[0].readings[i];
    EXPECT_EQ(reading.name(), engine::SiteName(expected[i].site));
    EXPECT_EQ(reading.position(), 7u);
    EXPECT_EQ(reading.logit_difference(), *expected[i].metrics.logit_difference);
    EXPECT_EQ(reading.refusal_log_odds(), *expected[i].metrics.refusal_log_odds);
    EXPECT_EQ(reading.kl_from_final(), *expected[i].metrics.kl_from_clean);
    EXPECT_EQ(reading.target().token_id(), static_cast<uint32_t>(expected[i].target.id));
    EXPECT_EQ(reading.target_rank(), expected[i].target_rank);
    EXPECT_EQ(reading.target_log_probability(), expected[i].target_log_probability);
    ASSERT_THAT(reading.top_tokens(), SizeIs(3));
    EXPECT_EQ(reading.top_tokens(0).logit(), expected[i].metrics.top_tokens[0].logit);
  }
  EXPECT_EQ(result.prompts[0].readings.back().name(), "blocks.3.hook_resid_post");
  EXPECT_EQ(result.prompts[0].readings.back().target_rank(), 0u);
}

TEST_F(ReadoutRpc, ReadsTheSitesPositionsAndTokenThatAreAskedFor) {
  auto request = Request("positions { indices: [1, -1] } logit_lens { resid_mid: true target_token_id: 44 }");
  const ReadOut result = Run(request);
  ASSERT_THAT(result.status, IsOk());
  ASSERT_THAT(result.prompts.at(0).readings, SizeIs(2 * 9));
  EXPECT_EQ(result.prompts[0].readings[1].name(), "blocks.0.hook_resid_mid");
  EXPECT_EQ(result.prompts[0].readings[1].position(), 1u);
  EXPECT_EQ(result.prompts[0].readings[17].position(), 7u);
  EXPECT_EQ(result.prompts[0].readings[17].target().token_id(), 44u);
  EXPECT_FALSE(result.prompts[0].readings[17].has_logit_difference());
  EXPECT_THAT(result.prompts[0].readings[17].top_tokens(), IsEmpty());
  request.mutable_positions()->Clear();  // there, and empty: all
  EXPECT_THAT(Run(request).prompts.at(0).readings, SizeIs(8 * 9));
}

TEST_F(ReadoutRpc, CutsWhatIsMoreThanAMessage) {
  auto request = Request("metrics { top_token_count: 512 } positions {} logit_lens { resid_mid: true }");
  *request.mutable_prompts(0) = Prompt(24);
  const ReadOut result = Run(request);
  ASSERT_THAT(result.status, IsOk());
  ASSERT_THAT(result.prompts.at(0).readings, SizeIs(24 * 9));
  EXPECT_GT(result.pieces, 1);
  EXPECT_LE(result.largest_message, (size_t{1} << 20) + 16);
}

TEST_F(ReadoutRpc, ReturnsDirectContributions) {
  const ReadOut result = Run(Request(
      std::string(kTokens) + "positions { indices: [4, -1] } direct_attribution { neuron_count: 6 }"));
  ASSERT_THAT(result.status, IsOk());
  ASSERT_THAT(result.prompts.at(0).positions, SizeIs(2));
  const std::vector<engine::Sender> senders = engine::Senders(fixture_.model()->config());
  engine::DirectAttributionRequest request;
  request.prompt = EnginePrompt(8);
  request.positions = {4, 7};
  request.refusal_token_ids = {5, 9, 11};
  request.compliance_token_ids = {20, 31};
  request.neuron_count = 6;
  std::vector<engine::DirectAttribution> attributions;
  ASSERT_THAT(engine::AttributeDirectly(context_, request,
                                        [&](const engine::DirectAttribution& attribution) {
                                          attributions.push_back(attribution);
                                          return absl::OkStatus();
                                        }),
              IsOk());
  for (int i = 0; i < 2; ++i) {
    const engine::DirectAttribution& expected = attributions[i];
    const v1::ReadoutPosition& position = result.prompts[0].positions[i];
    EXPECT_EQ(position.position(), static_cast<uint32_t>(request.positions[i]));
    EXPECT_EQ(position.mean_logit_difference(), expected.logit_difference);
    EXPECT_EQ(position.contribution_sum(), expected.Sum());
    const std::vector<v1::DirectContribution>& contributions = result.prompts[0].contributions[i];
    ASSERT_EQ(contributions.size(), senders.size() + 6);
    for (size_t s = 0; s < senders.size(); ++s) {
      EXPECT_EQ(contributions[s].name(), engine::NameOf(senders[s]));
      EXPECT_EQ(contributions[s].contribution(), expected.senders[s]);
      EXPECT_EQ(contributions[s].has_node(), senders[s].kind == engine::Sender::Kind::kHead);
    }
    const v1::DirectContribution& neuron = contributions[senders.size()];
    EXPECT_EQ(neuron.contribution(), expected.neurons[0].value);
    EXPECT_EQ(neuron.node(), static_cast<uint32_t>(expected.neurons[0].neuron));
    EXPECT_EQ(neuron.site().point(), v1::HOOK_POINT_MLP_POST);
    EXPECT_EQ(neuron.name(), absl::StrCat("L", expected.neurons[0].layer, ".N", expected.neurons[0].neuron));
  }
}

// Each prompt is as it would be alone; interventions are in force.
TEST_F(ReadoutRpc, TakesManyPromptsAndInterventions) {
  for (const std::string readout : {"logit_lens {}", "direct_attribution {}"}) {
    const std::string text = kTokens + readout;
    auto request =
        Request(text + " interventions { site { point: HOOK_POINT_MLP_OUT layer: 1 } zeroing {} }");
    *request.add_prompts() = Prompt(5);
    const ReadOut both = Run(request);
    ASSERT_THAT(both.status, IsOk());
    ASSERT_THAT(both.prompts, SizeIs(2));
    *request.mutable_prompts(0) = Prompt(5);
    request.mutable_prompts()->RemoveLast();
    const ReadOut alone = Run(request);
    request.clear_interventions();
    const ReadOut plain = Run(request);
    const auto last = [](const OfPrompt& prompt) {
      return prompt.readings.empty() ? prompt.positions[0].mean_logit_difference()
                                     : prompt.readings.back().logit_difference();
    };
    EXPECT_EQ(last(both.prompts[1]), last(alone.prompts.at(0)));
    EXPECT_NE(last(plain.prompts.at(0)), last(alone.prompts[0]));
  }
}

TEST_F(ReadoutRpc, NamesTheFieldsAtFault) {
  const std::string tokens = kTokens;
  EXPECT_THAT(FieldsAtFault(tokens), ElementsAre("readout"));
  EXPECT_THAT(FieldsAtFault("direct_attribution {}"),
              ElementsAre("metrics.refusal_token_ids", "metrics.compliance_token_ids"));
  EXPECT_THAT(FieldsAtFault("metrics { refusal_token_ids: 5 compliance_token_ids: 6 top_token_count: 1 } "
                            "direct_attribution {}"),
              ElementsAre("metrics.top_token_count"));
  EXPECT_THAT(FieldsAtFault(tokens + "direct_attribution { neuron_count: 100001 }"),
              ElementsAre("direct_attribution.neuron_count"));
  EXPECT_THAT(
      FieldsAtFault("metrics { refusal_openings { ids: 1 } compliance_openings { ids: 2 } "
                    "top_token_count: 1001 } logit_lens {}"),
      ElementsAre("metrics.top_token_count", "metrics.refusal_openings", "metrics.compliance_openings"));
  EXPECT_THAT(FieldsAtFault("metrics { refusal_token_ids: 512 } logit_lens { target_token_id: 512 }"),
              ElementsAre("metrics.refusal_token_ids[0]", "logit_lens.target_token_id"));
  EXPECT_THAT(FieldsAtFault("positions { indices: 8 } logit_lens {}"), ElementsAre("positions.indices[0]"));
  EXPECT_THAT(FieldsAtFault("positions { named: 77 } logit_lens {}"), ElementsAre("positions.named[0]"));
  EXPECT_THAT(FieldsAtFault("prompts { token_ids { ids: 600 } } logit_lens {}"),
              ElementsAre("prompts[0].token_ids.ids[0]"));
  EXPECT_THAT(
      FieldsAtFault("logit_lens {} interventions { site { point: HOOK_POINT_Z layer: 4 } zeroing {} }"),
      ElementsAre("interventions[0].site.layer"));
  v1::RunReadoutRequest none = Parse<v1::RunReadoutRequest>("logit_lens {}");
  EXPECT_EQ(Run(none).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  for (int i = 0; i < 1001; ++i) *none.add_prompts() = Prompt(2);
  EXPECT_EQ(Run(none).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace mechinterp
