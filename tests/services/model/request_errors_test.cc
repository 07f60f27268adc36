// Bad requests get a clear error that names the field.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "nlohmann/json.hpp"
#include "services/common/status.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class RequestErrors : public testing::Test {
 protected:
  // A RunWithCache request that is good but for what is merged into it.
  auto Cache(const std::string& text) {
    auto request = Parse<v1::RunWithCacheRequest>(text);
    if (!request.has_prompt()) *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
    if (!request.has_filter()) request.mutable_filter()->add_name_patterns("logits");
    return ViolationsOf(service_.RunWithCache(request).status);
  }

  engine::Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
};

TEST_F(RequestErrors, MissingPrompt) {
  v1::GenerateRequest request;
  EXPECT_THAT(ViolationsOf(service_.Generate(request).status),
              ElementsAre(Pair("prompt", HasSubstr("must have"))));
}

TEST_F(RequestErrors, EmptyPrompt) {
  EXPECT_THAT(Cache("prompt { token_ids {} }"),
              ElementsAre(Pair("prompt.token_ids.ids", "must not be empty")));
}

TEST_F(RequestErrors, TokenOutsideTheVocabulary) {
  EXPECT_THAT(Cache("prompt { token_ids { ids: 5 ids: 512 } }"),
              ElementsAre(Pair("prompt.token_ids.ids[1]", "token id 512 is not in [0, 512)")));
}

TEST_F(RequestErrors, DataTypeOfActivations) {
  EXPECT_THAT(Cache("data_type: 99"),
              ElementsAre(Pair("data_type", HasSubstr("FLOAT32, FLOAT16 or BFLOAT16"))));
  EXPECT_THAT(Cache("store: true data_type: DATA_TYPE_FLOAT16"),
              ElementsAre(Pair("data_type", HasSubstr("unset with store"))));
  v1::GetActivationRequest request;
  request.set_handle("none");
  request.set_data_type(static_cast<v1::DataType>(99));
  grpc::ClientContext context;
  EXPECT_THAT(ViolationsOf(service_.stub().GetActivation(&context, request)->Finish()),
              ElementsAre(Pair("data_type", HasSubstr("must be"))));
}

// Of a tokenizer with a <pad> that was never added to the model.
TEST(PaddedTokenizer, TextWithATokenPastTheEmbedding) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("abstract-padded-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  for (const char* file : {"config.json", "model.safetensors", "tokenizer.json"}) {
    fs::copy(std::string(ABSTRACT_SOURCE_DIR) + "/data/models/tiny-llama-refusal/" + file, folder / file,
             fs::copy_options::overwrite_existing);
  }
  auto tokenizer = nlohmann::json::parse(std::ifstream(folder / "tokenizer.json"));
  auto token = tokenizer["added_tokens"].back();
  token.update({{"id", 2608}, {"content", "<pad>"}});
  tokenizer["added_tokens"].push_back(token);
  std::ofstream(folder / "tokenizer.json") << tokenizer;
  const auto model = engine::Model::Load(folder.string());
  ASSERT_THAT(model, IsOk());
  ServiceFixture service(*model);
  auto request =
      Parse<v1::RunWithCacheRequest>("prompt { text: 'one<pad>' } filter { name_patterns: 'logits' }");
  EXPECT_THAT(ViolationsOf(service.RunWithCache(request).status),
              ElementsAre(Pair("prompt",
                               HasSubstr("'<pad>' (id 2608), which is past the model's embedding of 2608"))));
  request.mutable_prompt()->set_text("one");
  EXPECT_TRUE(service.RunWithCache(request).status.ok());
  const auto scored =
      Parse<v1::ScoreTextsRequest>("texts { prompt { text: 'one' } continuation_text: 'two<pad>' }");
  grpc::ClientContext context;
  EXPECT_THAT(ViolationsOf(service.stub().ScoreTexts(&context, scored)->Finish()),
              ElementsAre(Pair("texts[0].continuation_text", HasSubstr("'<pad>' (id 2608), which is past"))));
  fs::remove_all(folder);
}

TEST_F(RequestErrors, PromptPastTheContext) {
  v1::GenerateRequest request;
  for (int i = 0; i < 8190; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(1);
  request.mutable_sampling()->set_max_new_tokens(3);
  EXPECT_THAT(ViolationsOf(service_.Generate(request).status),
              ElementsAre(Pair("prompt", HasSubstr("exceeds the model's context of 8192"))));
}

TEST_F(RequestErrors, UnknownHookPoint) {
  EXPECT_THAT(Cache("filter { name_patterns: 'blocks.0.hook_nothing' }"),
              ElementsAre(Pair("filter.name_patterns[0]", HasSubstr("matches no hook point"))));
  EXPECT_THAT(Cache("interventions { site { point: 99 } zeroing {} }"),
              ElementsAre(Pair("interventions[0].site.point", "hook point 99 is not known")));
  EXPECT_THAT(Cache("filter { positions { indices: 1 } }"),
              ElementsAre(Pair("filter", HasSubstr("at least one"))));
}

TEST_F(RequestErrors, EveryViolationAtOnce) {
  EXPECT_THAT(
      Cache("interventions { site { point: HOOK_POINT_Z layer: 4 } zeroing {} }"
            "interventions { site { point: HOOK_POINT_Z layer: 1 } selector { heads: 8 } zeroing {} }"
            "interventions { site { point: HOOK_POINT_Z layer: 1 } selector { positions { indices: 17 } }"
            "  scaling { factor: nan } }"
            "store_ttl_seconds: 0"),
      ElementsAre(
          Pair("store_ttl_seconds", "must be in [1, 86400]"),
          Pair("interventions[0].site.layer", "layer 4 is not in [0, 4)"),
          Pair("interventions[1].selector.heads[0]", "head 8 is not in [0, 8)"),
          Pair("interventions[2].selector.positions.indices[0]", HasSubstr("17 is outside the prompt")),
          Pair("interventions[2].scaling.factor", "must be finite")));
}

TEST_F(RequestErrors, GroupsOfSites) {
  const auto edit = [&](const std::string& sites) {
    return Cache("interventions { " + sites + " zeroing {} }");
  };
  EXPECT_THAT(edit("sites {}"), ElementsAre(Pair("interventions[0].sites.points", "must not be empty")));
  EXPECT_THAT(edit("sites { points: [HOOK_POINT_Z, 99] layers: [1, 4] }"),
              ElementsAre(Pair("interventions[0].sites.points[1]", "hook point 99 is not known"),
                          Pair("interventions[0].sites.layers[1]", "4 is not in [0, 4)")));
  EXPECT_THAT(edit("sites { points: HOOK_POINT_LOGITS layers: 0 }"),
              ElementsAre(Pair("interventions[0].sites.points[0]", HasSubstr("has no layer"))));
  EXPECT_THAT(edit("sites { points: HOOK_POINT_Z } site { point: HOOK_POINT_Z }"),
              ElementsAre(Pair("interventions[0].sites", HasSubstr("must be unset"))));
  // What is wrong at every site is told once, by the number that the client knows.
  EXPECT_THAT(Cache("interventions { sites { points: HOOK_POINT_Z } zeroing {} }"
                    "interventions { sites { points: HOOK_POINT_Z } selector { heads: 8 } zeroing {} }"),
              ElementsAre(Pair("interventions[1].selector.heads[0]", "head 8 is not in [0, 8)")));
  std::string many;
  for (int i = 0; i < 1025; ++i)
    many += "interventions { sites { points: HOOK_POINT_Z } scaling { factor: 1 } }";
  EXPECT_THAT(Cache(many), ElementsAre(Pair("interventions[1024]", HasSubstr("4100 edits of one run"))));
}

// What a short message would make long.
TEST_F(RequestErrors, ListsAtManySitesOrOfManyPrompts) {
  v1::RunWithPatchRequest patch;
  patch.mutable_prompt()->mutable_token_ids()->add_ids(1);
  v1::Intervention& edit = *patch.add_interventions();
  edit.mutable_sites()->add_points(v1::HOOK_POINT_MLP_POST);
  edit.mutable_zeroing();
  for (int i = 0; i < 1'100'000; ++i) edit.mutable_selector()->add_dims(0);
  grpc::ClientContext context;
  v1::RunWithPatchResponse response;
  EXPECT_THAT(
      ViolationsOf(service_.stub().RunWithPatch(&context, patch, &response)),
      ElementsAre(Pair("interventions[0].selector", HasSubstr("1100000 entries at each of 4 sites"))));
  v1::RunMeanActivationsRequest means;
  for (int i = 0; i < 1000; ++i) means.add_prompts()->mutable_token_ids()->add_ids(1);
  means.mutable_filter()->add_name_patterns("hook_embed");
  for (int i = 0; i < 60'000; ++i) means.mutable_filter()->mutable_positions()->add_indices(-1);
  grpc::ClientContext second;
  EXPECT_THAT(ViolationsOf(service_.stub().RunMeanActivations(&second, means)->Finish()),
              ElementsAre(Pair("filter.positions", HasSubstr("60000 entries for each of 1000 prompts"))));
}

TEST_F(RequestErrors, NumbersBeyondFp32) {
  EXPECT_THAT(
      Cache("interventions { site { point: HOOK_POINT_Z layer: 1 } scaling { factor: 1e39 } }"
            "interventions { site { point: HOOK_POINT_Z layer: 1 } noise_addition { standard_deviation: 1e39 "
            "} }"),
      ElementsAre(Pair("interventions[0].scaling.factor", HasSubstr("range of fp32")),
                  Pair("interventions[1].noise_addition.standard_deviation", HasSubstr("range of fp32"))));
}

TEST_F(RequestErrors, AllPositionsOfUnequalPrompts) {
  EXPECT_THAT(
      Cache("interventions { site { point: HOOK_POINT_RESID_PRE layer: 1 }"
            "  replacement { source { prompt { prompt { token_ids { ids: 1 ids: 2 } } } } } }"),
      ElementsAre(Pair("interventions[0].replacement.source",
                       HasSubstr("differ in length (17 and 2 tokens), so all positions do not correspond"))));
}

TEST_F(RequestErrors, AnInterventionWithoutSiteOrEdit) {
  EXPECT_THAT(Cache("interventions {}"), ElementsAre(Pair("interventions[0].site", "is missing"),
                                                     Pair("interventions[0]", HasSubstr("an edit"))));
}

TEST_F(RequestErrors, TensorsThatDoNotFit) {
  EXPECT_THAT(Cache("interventions { site { point: HOOK_POINT_RESID_PRE layer: 1 }"
                    "  addition { vector { data_type: DATA_TYPE_FLOAT32 shape: 2 data: '12345678' } } }"),
              ElementsAre(Pair("interventions[0].addition.vector.shape",
                               HasSubstr("is [2]; the selected part takes"))));
  EXPECT_THAT(Cache("interventions { site { point: HOOK_POINT_RESID_PRE layer: 1 }"
                    "  addition { vector { data_type: DATA_TYPE_FLOAT32 shape: 64 data: '123' } } }"),
              ElementsAre(Pair("interventions[0].addition.vector", testing::_)));
}

TEST_F(RequestErrors, SamplingOutOfRange) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
  *request.mutable_sampling() =
      Parse<v1::SamplingOptions>("max_new_tokens: 0 temperature: -1 top_p: 1.5 stop_token_ids: 600");
  EXPECT_THAT(ViolationsOf(service_.Generate(request).status),
              ElementsAre(Pair("sampling.max_new_tokens", "0 is not in [1, 8192]"),
                          Pair("sampling.temperature", "must be in [0, 1e6]"),
                          Pair("sampling.top_p", "must be in (0, 1]"),
                          Pair("sampling.stop_token_ids[0]", HasSubstr("token id 600"))));
}

TEST_F(RequestErrors, MetricsOfAGeneration) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
  *request.mutable_metrics() = Parse<v1::MetricOptions>(
      "refusal_token_ids: [1, 2, 3, 512] refusal_openings { ids: [1, 600] } compliance_openings {} "
      "top_token_count: 1001");
  EXPECT_THAT(ViolationsOf(service_.Generate(request).status),
              ElementsAre(Pair("metrics.refusal_token_ids[3]", "token id 512 is not in [0, 512)"),
                          Pair("metrics.refusal_openings[0].ids[1]", HasSubstr("token id 600")),
                          Pair("metrics.compliance_openings[0].ids", "must not be empty"),
                          Pair("metrics.top_token_count", "must be at most 1000")));
}

TEST_F(RequestErrors, AnOpeningPastTheContext) {
  v1::GenerateRequest request;
  for (int i = 0; i < 8190; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(1);
  request.mutable_sampling()->set_max_new_tokens(1);
  *request.mutable_metrics() = Parse<v1::MetricOptions>("refusal_openings { ids: [1, 2, 3] }");
  EXPECT_THAT(ViolationsOf(service_.Generate(request).status),
              ElementsAre(Pair("prompt", HasSubstr("with 3 to come that exceeds"))));
}

TEST_F(RequestErrors, SweepsNeedSetsOrAGrid) {
  v1::RunPatchSweepRequest request;
  *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
  EXPECT_THAT(ViolationsOf(service_.Sweep(request).status),
              ElementsAre(Pair("grid", HasSubstr("exactly one of"))));
  *request.mutable_grid() = Parse<v1::SweepGrid>(
      "prototype { zeroing {} } points: HOOK_POINT_MLP_OUT axes: SWEEP_AXIS_HEAD layers: 9");
  EXPECT_THAT(ViolationsOf(service_.Sweep(request).status),
              ElementsAre(Pair("grid.layers[0]", HasSubstr("layer 9")),
                          Pair("grid.points[0]", HasSubstr("no head axis"))));
}

TEST_F(RequestErrors, ActivationsBeyondTheServersLimit) {
  ModelServiceOptions options;
  options.max_activation_bytes = 1000;
  ServiceFixture small(fixture_.model(), options);
  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
  request.mutable_filter()->add_name_patterns("logits");
  EXPECT_THAT(ViolationsOf(small.RunWithCache(request).status),
              ElementsAre(Pair("filter", HasSubstr("would take 34816 bytes"))));
}

}  // namespace
}  // namespace mechinterp
