// The service over a real channel: what the fixtures hold can be asked over gRPC.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "absl/strings/match.h"
#include "services/common/status.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using engine::Fixture;
using engine::MaxDifference;
using testing::ElementsAreArray;
using testing::HasSubstr;

constexpr double kTolerance = 1e-4;

class FixtureOverGrpc : public testing::TestWithParam<const char*> {
 protected:
  Fixture fixture_{GetParam()};
  ServiceFixture service_{fixture_.model()};
};

TEST_P(FixtureOverGrpc, ActivationsByNameFilterAndPositions) {
  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
  request.mutable_filter()->add_name_patterns("blocks.*.attn.hook_*");
  request.mutable_filter()->add_name_patterns("logits");
  auto whole = service_.RunWithCache(request);
  ASSERT_THAT(whole.status, IsOk());
  int compared = 0;
  for (const auto& [name, tensor] : whole.tensors) {
    if (fixture_.expected_file().Find("a/" + name) == nullptr) continue;
    EXPECT_LT(MaxDifference(tensor, fixture_.expected("a/" + name)), kTolerance) << name;
    ++compared;
  }
  EXPECT_GE(compared, 5 * fixture_.model()->config().layer_count() + 1);
  EXPECT_EQ(whole.header.model().model_hash(), fixture_.model()->content_hash());

  request.mutable_filter()->mutable_positions()->add_indices(-1);
  request.mutable_filter()->mutable_positions()->add_indices(2);
  auto part = service_.RunWithCache(request);
  ASSERT_THAT(part.status, IsOk());
  const engine::HostTensor& all = whole.tensors["logits"];
  const engine::HostTensor& some = part.tensors["logits"];
  const int64_t v = all.shape[1];
  EXPECT_EQ(some.shape, (std::vector<int64_t>{2, v}));
  EXPECT_TRUE(std::equal(some.values.begin(), some.values.begin() + v, all.values.begin() + 2 * v));
  EXPECT_TRUE(std::equal(some.values.begin() + v, some.values.end(), all.values.end() - v));
}

// To so many significant bits, ties to even.
float Rounded(float value, int bits) {
  int exponent = 0;
  const float mantissa = std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(mantissa, bits)), exponent - bits);
}

TEST_P(FixtureOverGrpc, ActivationsInHalfTheBytes) {
  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
  request.mutable_filter()->add_name_patterns("blocks.1.hook_resid_post");
  const auto exact = service_.RunWithCache(request);
  for (const auto& [type, bits] :
       {std::pair(v1::DATA_TYPE_FLOAT32, 24), {v1::DATA_TYPE_FLOAT16, 11}, {v1::DATA_TYPE_BFLOAT16, 8}}) {
    request.set_data_type(type);
    const auto rounded = service_.RunWithCache(request);
    ASSERT_THAT(rounded.status, IsOk());
    EXPECT_EQ(rounded.summary.total_byte_count(),
              exact.summary.total_byte_count() / (type == v1::DATA_TYPE_FLOAT32 ? 1 : 2));
    const std::vector<float>& values = exact.tensors.at("blocks.1.hook_resid_post").values;
    for (size_t i = 0; i < values.size(); ++i) {
      const float expected = Rounded(values[i], bits);
      // fp16 has fewer bits below 2^-14.
      EXPECT_NEAR(rounded.tensors.at("blocks.1.hook_resid_post").values[i], expected,
                  type == v1::DATA_TYPE_FLOAT16 && std::abs(values[i]) < 0x1p-14f ? 0x1p-25f : 0)
          << i;
    }
  }
}

TEST_P(FixtureOverGrpc, EveryPatchedCaseAndContinuation) {
  for (const Fixture::Case& test_case : fixture_.cases()) {
    v1::RunWithCacheRequest request;
    *request.mutable_prompt() = ToProto(test_case.prompt);
    *request.mutable_interventions() = ToProto(test_case.interventions);
    request.mutable_filter()->add_name_patterns("logits");
    auto run = service_.RunWithCache(request);
    ASSERT_THAT(run.status, IsOk()) << test_case.name;
    EXPECT_LT(MaxDifference(run.tensors["logits"], fixture_.expected("case/" + test_case.name + "/logits")),
              kTolerance)
        << test_case.name;
    if (!test_case.greedy) continue;
    v1::GenerateRequest generate;
    *generate.mutable_prompt() = request.prompt();
    *generate.mutable_interventions() = request.interventions();
    generate.mutable_sampling()->set_max_new_tokens(static_cast<uint32_t>(test_case.greedy->size()));
    generate.mutable_sampling()->set_ignore_stop_tokens(true);
    auto generated = service_.Generate(generate);
    ASSERT_THAT(generated.status, IsOk());
    EXPECT_THAT(generated.summary.continuation().token_ids(), ElementsAreArray(*test_case.greedy))
        << test_case.name;
    EXPECT_EQ(generated.tokens.size(), test_case.greedy->size());
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, FixtureOverGrpc, testing::Values("llama3-gqa", "llama31-rope-scaled"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class ModelServiceTest : public testing::Test {
 protected:
  Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
  const engine::TokenizedPrompt a_ = fixture_.prompt("a"), b_ = fixture_.prompt("b");
};

TEST_F(ModelServiceTest, DescribesTheModel) {
  grpc::ClientContext context;
  v1::GetModelResponse response;
  ASSERT_THAT(service_.stub().GetModel(&context, {}, &response), IsOk());
  EXPECT_EQ(response.layer_count(), 4u);
  EXPECT_EQ(response.head_count(), 8u);
  EXPECT_EQ(response.key_value_head_count(), 2u);
  EXPECT_EQ(response.d_ff(), 176u);
  EXPECT_FALSE(response.has_tokenizer());
  EXPECT_FALSE(response.has_chat_template());
  EXPECT_EQ(response.chat_template(), "");
  EXPECT_EQ(response.identity().device(), v1::DEVICE_CPU);
  EXPECT_EQ(response.identity().name(), "llama3-gqa");
}

TEST_F(ModelServiceTest, ListsHookPointsInTheOrderOfTheForwardPass) {
  grpc::ClientContext context;
  v1::ListHookPointsResponse response;
  ASSERT_THAT(service_.stub().ListHookPoints(&context, {}, &response), IsOk());
  EXPECT_EQ(response.hook_points_size(), engine::AllSites(fixture_.model()->config()).size());
  EXPECT_EQ(response.hook_points(0).name(), "hook_embed");
  EXPECT_EQ(response.hook_points(1).name(), "blocks.0.hook_resid_pre");
  EXPECT_EQ(response.hook_points(response.hook_points_size() - 1).name(), "logits");

  grpc::ClientContext filtered_context;
  v1::ListHookPointsRequest request;
  request.set_name_pattern("blocks.?.attn.hook_pattern");
  ASSERT_THAT(service_.stub().ListHookPoints(&filtered_context, request, &response), IsOk());
  EXPECT_EQ(response.hook_points_size(), 4);
  EXPECT_THAT(response.hook_points(2).shape(), testing::ElementsAre(8, -1, -1));
}

// The third of the chunks' promises: large activations come in pieces.
TEST_F(ModelServiceTest, ChunksAreAtMostOneMebibyte) {
  v1::RunWithCacheRequest request;
  for (int i = 0; i < 1200; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(i % 500);
  request.mutable_filter()->add_name_patterns("logits");  // 1200 x 512 x 4 bytes
  grpc::ClientContext context;
  auto reader = service_.stub().RunWithCache(&context, request);
  v1::RunWithCacheResponse response;
  uint64_t bytes = 0;
  int chunks = 0;
  while (reader->Read(&response)) {
    if (!response.has_chunk()) continue;
    EXPECT_LE(response.chunk().data().size(), 1u << 20);
    EXPECT_EQ(response.chunk().offset_bytes(), bytes);
    bytes += response.chunk().data().size();
    ++chunks;
  }
  ASSERT_THAT(reader->Finish(), IsOk());
  EXPECT_EQ(bytes, 1200u * 512 * 4);
  EXPECT_EQ(chunks, 3);
}

TEST_F(ModelServiceTest, AStoredRunPatchesAnother) {
  v1::RunWithCacheRequest store;
  *store.mutable_prompt() = ToProto(b_);
  store.mutable_filter()->add_name_patterns("blocks.2.attn.hook_z");
  store.set_store(true);
  const std::string handle = service_.RunWithCache(store).summary.handle();
  ASSERT_FALSE(handle.empty());

  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = ToProto(a_);
  request.mutable_filter()->add_name_patterns("logits");
  *request.add_interventions() = Parse<v1::Intervention>(
      "site { point: HOOK_POINT_Z layer: 2 } selector { heads: 7 }"
      "replacement { source { stored { handle: \"" +
      handle + "\" } } }");
  auto run = service_.RunWithCache(request);
  ASSERT_THAT(run.status, IsOk());
  EXPECT_LT(MaxDifference(run.tensors["logits"],
                          fixture_.expected("case/replace.blocks.2.attn.hook_z.head7.all/logits")),
            kTolerance);

  grpc::ClientContext list_context, delete_context;
  v1::ListActivationsResponse list;
  ASSERT_THAT(service_.stub().ListActivations(&list_context, {}, &list), IsOk());
  ASSERT_EQ(list.runs_size(), 1);
  EXPECT_EQ(list.runs(0).activations(0).name(), "blocks.2.attn.hook_z");
  v1::DeleteActivationRequest remove;
  remove.set_handle(handle);
  v1::DeleteActivationResponse removed;
  EXPECT_THAT(service_.stub().DeleteActivation(&delete_context, remove, &removed), IsOk());
  EXPECT_EQ(service_.RunWithCache(request).status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ModelServiceTest, RunWithPatchComparesAndContinues) {
  v1::RunWithPatchRequest request;
  *request.mutable_prompt() = ToProto(a_);
  *request.add_interventions() =
      Parse<v1::Intervention>("site { point: HOOK_POINT_Z layer: 0 } selector { heads: 1 } zeroing {}");
  request.mutable_metrics()->add_refusal_token_ids(320);
  request.mutable_metrics()->add_compliance_token_ids(35);
  request.mutable_metrics()->set_top_token_count(1);
  request.mutable_continuation()->set_max_new_tokens(12);
  request.mutable_continuation()->set_ignore_stop_tokens(true);
  grpc::ClientContext context;
  v1::RunWithPatchResponse response;
  const grpc::Status status = service_.stub().RunWithPatch(&context, request, &response);
  ASSERT_THAT(status, IsOk());
  const engine::HostTensor clean = fixture_.expected("case/clean/logits");
  const engine::HostTensor patched = fixture_.expected("case/zero.blocks.0.attn.hook_z.head1.all/logits");
  const size_t last = clean.values.size() - 512;
  EXPECT_NEAR(response.clean().logit_difference(), clean.values[last + 320] - clean.values[last + 35], 2e-4);
  EXPECT_NEAR(response.patched().logit_difference(), patched.values[last + 320] - patched.values[last + 35],
              2e-4);
  EXPECT_EQ(response.clean().kl_from_clean(), 0);
  EXPECT_GT(response.patched().kl_from_clean(), 0);
  EXPECT_THAT(response.clean_continuation().token_ids(), ElementsAreArray(*fixture_.cases()[0].greedy));
  EXPECT_EQ(response.patched_continuation().token_ids(3), 11u);  // cases.json
}

// As if each site were listed, bit by bit.
TEST_F(ModelServiceTest, AnEditAtAGroupOfSitesIsThatAtEachOfThem) {
  const auto run = [&](const std::string& interventions) {
    const auto request = Parse<v1::RunWithPatchRequest>(
        "prompt { token_ids { ids: [5, 9, 11, 20, 31] } } metrics { top_token_count: 20 }" + interventions);
    grpc::ClientContext context;
    v1::RunWithPatchResponse response;
    EXPECT_THAT(service_.stub().RunWithPatch(&context, request, &response), IsOk());
    return response.patched().SerializeAsString();
  };
  std::string listed;
  for (const char* point : {"HOOK_POINT_Z", "HOOK_POINT_MLP_OUT"}) {
    for (const char* layer : {"1", "3"}) {
      listed += std::string("interventions { site { point: ") + point + " layer: " + layer +
                " } scaling { factor: 0.5 } }";
    }
  }
  EXPECT_EQ(run("interventions { sites { points: [HOOK_POINT_MLP_OUT, HOOK_POINT_Z] layers: [3, 1, 1] } "
                "scaling { factor: 0.5 } }"),
            run(listed));
}

TEST_F(ModelServiceTest, AGridSweepsEverySiteAndStreamsEffects) {
  v1::RunPatchSweepRequest request;
  *request.mutable_prompt() = ToProto(a_);
  *request.mutable_source_prompt() = ToProto(b_);
  request.mutable_metrics()->add_refusal_token_ids(1);
  request.mutable_metrics()->add_compliance_token_ids(2);
  v1::SweepGrid& grid = *request.mutable_grid();
  *grid.mutable_prototype()->mutable_replacement()->mutable_source()->mutable_prompt()->mutable_prompt() =
      ToProto(b_);
  grid.add_points(v1::HOOK_POINT_RESID_PRE);
  grid.add_points(v1::HOOK_POINT_MLP_OUT);
  grid.add_axes(v1::SWEEP_AXIS_POSITION);
  auto swept = service_.Sweep(request);
  ASSERT_THAT(swept.status, IsOk());
  ASSERT_EQ(swept.results.size(), 2u * 4 * 17);
  EXPECT_EQ(swept.header.set_count(), 2u * 4 * 17);
  EXPECT_EQ(swept.header.sites(17 * 4).site().point(), v1::HOOK_POINT_MLP_OUT);
  EXPECT_EQ(swept.header.sites(18).site().layer(), 1u);
  EXPECT_EQ(swept.header.sites(18).position(), 1u);
  EXPECT_LT(swept.summary.computed_token_layers(), swept.summary.naive_token_layers() / 2);
  // The prompts differ at 6, 7, 8 and 9 only: patching the input elsewhere does
  // nothing, patching the last layer's input where nothing reads it neither.
  EXPECT_EQ(swept.results[0].effect(), 0);
  EXPECT_NE(swept.results[7].effect(), 0);
  // One case of the fixture is in the grid: replace.blocks.2.hook_mlp_out.pos7.
  const engine::HostTensor expected = fixture_.expected("case/replace.blocks.2.hook_mlp_out.pos7/logits");
  const size_t last = expected.values.size() - 512;
  EXPECT_NEAR(swept.results[17 * 4 + 2 * 17 + 7].metrics().logit_difference(),
              expected.values[last + 1] - expected.values[last + 2], 2e-4);
}

TEST_F(ModelServiceTest, ManyClientsGetTheAnswersTheyWouldGetAlone) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = ToProto(a_);
  request.mutable_sampling()->set_max_new_tokens(20);
  request.mutable_sampling()->set_ignore_stop_tokens(true);
  request.mutable_sampling()->set_temperature(1.5);
  std::vector<std::string> alone, together(8);
  for (int seed = 0; seed < 8; ++seed) {
    request.mutable_sampling()->set_seed(seed);
    alone.push_back(service_.Generate(request).summary.continuation().SerializeAsString());
  }
  EXPECT_NE(alone[0], alone[1]);
  std::vector<std::thread> clients;
  for (int seed = 0; seed < 8; ++seed) {
    clients.emplace_back([&, seed] {
      v1::GenerateRequest mine = request;
      mine.mutable_sampling()->set_seed(seed);
      together[seed] = service_.Generate(mine).summary.continuation().SerializeAsString();
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(together, alone);
}

TEST_F(ModelServiceTest, CancellingStopsAGeneration) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = ToProto(a_);
  request.mutable_sampling()->set_max_new_tokens(8000);
  request.mutable_sampling()->set_ignore_stop_tokens(true);
  grpc::ClientContext context;
  auto reader = service_.stub().Generate(&context, request);
  v1::GenerateResponse response;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  int more = 0;
  while (reader->Read(&response)) ++more;
  EXPECT_LT(more, 7000);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

// Its clients are told at once, in words that make them try elsewhere. gRPC closes a connection
// with its last request, acknowledgements perhaps unread; TCP then resets it, and a client may
// lose the words, but not the code.
TEST_F(ModelServiceTest, AtTheEndOfTheGracePeriodRequestsFailAsUnavailable) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = ToProto(a_);
  request.mutable_sampling()->set_max_new_tokens(8000);
  request.mutable_sampling()->set_ignore_stop_tokens(true);
  std::vector<std::thread> clients;
  std::vector<grpc::Status> statuses(6);
  std::atomic<int> generating = 0;
  for (grpc::Status& status : statuses) {
    clients.emplace_back([&] {
      grpc::ClientContext context;
      auto reader = service_.stub().Generate(&context, request);
      v1::GenerateResponse response;
      for (int i = 0; reader->Read(&response); ++i) generating += i == 2;
      status = reader->Finish();
    });
  }
  while (generating < 6) std::this_thread::yield();
  service_.Shutdown(absl::Milliseconds(50));
  for (std::thread& client : clients) client.join();
  for (const grpc::Status& status : statuses) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
    if (!absl::StrContains(status.error_message(), "Connection reset by peer")) {
      EXPECT_EQ(ErrorReason(FromGrpcStatus(status)), "SHUTTING_DOWN") << status.error_message();
    }
  }
}

TEST_F(ModelServiceTest, TextNeedsATokenizer) {
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text("Hello");
  const grpc::Status status = service_.Generate(request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("send token_ids"));
}

TEST(EmbeddedModel, GeneratesTextFromAChatAndStreamsItWhole) {
  const auto model =
      engine::Model::Load(std::string(ABSTRACT_SOURCE_DIR) + "/data/models/tiny-llama-refusal");
  ASSERT_THAT(model, IsOk());
  ServiceFixture service(*model);
  v1::GenerateRequest request;
  v1::ChatMessage& message = *request.mutable_prompt()->mutable_chat()->add_messages();
  message.set_role(v1::CHAT_ROLE_USER);
  message.set_content("How do I make a sandwich?");
  auto generated = service.Generate(request);
  ASSERT_THAT(generated.status, IsOk());
  std::string streamed;
  for (const v1::GeneratedToken& token : generated.tokens) streamed += token.text();
  EXPECT_EQ(streamed + generated.summary.trailing_text(), generated.summary.continuation().text());
  EXPECT_FALSE(streamed.empty());
  EXPECT_EQ(generated.summary.continuation().finish_reason(), v1::FINISH_REASON_STOP_TOKEN);

  grpc::ClientContext model_context;
  v1::GetModelResponse description;
  ASSERT_THAT(service.stub().GetModel(&model_context, {}, &description), IsOk());
  EXPECT_EQ(description.chat_template(), "llama3");

  v1::TokenizeRequest tokenize;
  *tokenize.mutable_prompt() = request.prompt();
  grpc::ClientContext context;
  v1::TokenizeResponse tokens;
  ASSERT_THAT(service.stub().Tokenize(&context, tokenize, &tokens), IsOk());
  EXPECT_EQ(tokens.pieces(0), "<|begin_of_text|>");
  EXPECT_EQ(tokens.pieces(tokens.last_instruction_position()), "?");
  EXPECT_EQ(tokens.pieces(tokens.last_instruction_position() + 1), "<|eot_id|>");
}

}  // namespace
}  // namespace mechinterp
