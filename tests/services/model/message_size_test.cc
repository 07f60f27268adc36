// No answer outgrows the 4 MiB that gRPC's clients take by default: lists come in pages, a
// sweep's sites in pieces, and what cannot be cut is refused by name.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "services/common/status.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr size_t kMebibyte = 1 << 20;

class MessageSize : public testing::Test {
 protected:
  v1::ListHookPointsResponse ListHookPoints(const std::string& request) {
    grpc::ClientContext context;
    v1::ListHookPointsResponse response;
    const auto status =
        service_.stub().ListHookPoints(&context, Parse<v1::ListHookPointsRequest>(request), &response);
    EXPECT_THAT(status, IsOk());
    return response;
  }

  v1::ListActivationsResponse ListActivations(const v1::ListActivationsRequest& request) {
    grpc::ClientContext context;
    v1::ListActivationsResponse response;
    EXPECT_THAT(service_.stub().ListActivations(&context, request, &response), IsOk());
    return response;
  }

  void Delete(const std::string& handle) {
    grpc::ClientContext context;
    v1::DeleteActivationRequest request;
    request.set_handle(handle);
    v1::DeleteActivationResponse response;
    EXPECT_THAT(service_.stub().DeleteActivation(&context, request, &response), IsOk());
  }

  // Stores runs whose descriptions take some 4 KiB each, and returns their handles.
  std::vector<std::string> StoreRuns(int count) {
    v1::RunWithCacheRequest request;
    request.mutable_prompt()->mutable_token_ids()->add_ids(3);
    request.mutable_filter()->add_name_patterns("*");
    request.set_store(true);
    std::vector<std::string> handles;
    for (int i = 0; i < count; ++i) handles.push_back(service_.RunWithCache(request).summary.handle());
    return handles;
  }

  engine::Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
};

TEST_F(MessageSize, HookPointsComeInPagesOfTheSizeAskedFor) {
  std::vector<std::string> names;
  std::string token;
  size_t pages = 0;
  do {
    const auto page = ListHookPoints("name_pattern: 'blocks.*' page_size: 25 page_token: '" + token + "'");
    EXPECT_LE(page.hook_points_size(), 25);
    for (const v1::HookPointInfo& info : page.hook_points()) names.push_back(info.name());
    token = page.next_page_token();
    ++pages;
  } while (!token.empty());
  std::vector<std::string> whole;
  const v1::ListHookPointsResponse all = ListHookPoints("name_pattern: 'blocks.*'");
  for (const v1::HookPointInfo& info : all.hook_points()) whole.push_back(info.name());
  EXPECT_EQ(names, whole);
  EXPECT_EQ(pages, (whole.size() + 24) / 25);
  EXPECT_GT(pages, 1u);
}

TEST_F(MessageSize, StoredRunsComeInPagesOfOneMebibyte) {
  const std::vector<std::string> handles = StoreRuns(400);
  v1::ListActivationsRequest request;
  std::vector<std::string> listed;
  int pages = 0;
  do {
    const v1::ListActivationsResponse page = ListActivations(request);
    EXPECT_LE(page.ByteSizeLong(), kMebibyte + 100);  // the token
    for (const v1::StoredRun& run : page.runs()) listed.push_back(run.handle());
    request.set_page_token(page.next_page_token());
    // What is deleted between two pages takes no other run away.
    if (pages++ == 0) {
      Delete(handles.front());
      Delete(listed.back());
    }
  } while (!request.page_token().empty());
  EXPECT_GE(pages, 2);
  EXPECT_EQ(listed.size(), 400u);
  EXPECT_EQ(std::set<std::string>(listed.begin(), listed.end()),
            std::set<std::string>(handles.begin(), handles.end()));
}

TEST_F(MessageSize, PagesThatAreNoneAreRefusedByName) {
  grpc::ClientContext context;
  v1::ListHookPointsResponse response;
  const auto request = Parse<v1::ListHookPointsRequest>("page_size: -1 page_token: '!'");
  const auto status = service_.stub().ListHookPoints(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("page_size: must"), HasSubstr("page_token: is no")));
}

// 140,800 sites: every neuron of four layers at each of 200 positions.
TEST_F(MessageSize, ASweepsSitesComeInPieces) {
  v1::RunPatchSweepRequest request;
  for (int i = 0; i < 200; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(i);
  *request.mutable_grid() = Parse<v1::SweepGrid>(
      "prototype { zeroing {} } points: HOOK_POINT_MLP_POST axes: SWEEP_AXIS_POSITION "
      "axes: SWEEP_AXIS_DIM_GROUP dims_per_group: 1");
  grpc::ClientContext context;
  const auto reader = service_.stub().RunPatchSweep(&context, request);
  v1::RunPatchSweepResponse message;
  std::vector<v1::SweepSite> sites;
  uint32_t set_count = 0;
  int pieces = 0;
  while (reader->Read(&message) && !message.has_result()) {
    EXPECT_LE(message.ByteSizeLong(), kMebibyte);
    EXPECT_EQ(message.has_header(), pieces++ == 0);
    if (message.has_header()) set_count = message.header().set_count();
    const auto& piece = message.has_header() ? message.header().sites() : message.sites().sites();
    sites.insert(sites.end(), piece.begin(), piece.end());
  }
  context.TryCancel();
  EXPECT_FALSE(reader->Finish().ok());
  EXPECT_GE(pieces, 2);
  EXPECT_EQ(set_count, 4u * 200 * 176);
  ASSERT_EQ(sites.size(), 4u * 200 * 176);
  for (const size_t index : {size_t{0}, size_t{175}, size_t{176}, size_t{123'456}, sites.size() - 1}) {
    EXPECT_EQ(sites[index].site().layer(), index / (200 * 176)) << index;
    EXPECT_EQ(sites[index].position(), index / 176 % 200) << index;
    EXPECT_EQ(sites[index].dim_begin(), index % 176) << index;
    EXPECT_EQ(sites[index].dim_end(), index % 176 + 1) << index;
  }
}

TEST_F(MessageSize, TokensThatTakeMoreAreRefused) {
  // Each takes two bytes as an id and two as an empty piece.
  v1::TokenizeRequest request;
  for (int i = 0; i < 1'000'000; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(300);
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  EXPECT_THAT(service_.stub().Tokenize(&context, request, &response), IsOk());
  EXPECT_EQ(response.ids_size(), 1'000'000);
  for (int i = 0; i < 100'000; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(300);
  grpc::ClientContext longer;
  const auto status = service_.stub().Tokenize(&longer, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("prompt: the answer would take more than the 4194304 bytes"));
}

TEST_F(MessageSize, ATextThatTakesMoreIsRefused) {
  const auto model =
      engine::Model::Load(std::string(ABSTRACT_SOURCE_DIR) + "/data/models/tiny-llama-refusal");
  ASSERT_THAT(model, IsOk());
  ServiceFixture embedded(*model);
  v1::TokenizeRequest word;
  word.mutable_prompt()->set_text(" refusal");
  word.set_omit_begin_of_text(true);
  v1::TokenizeResponse tokens;
  grpc::ClientContext tokenize_context;
  ASSERT_THAT(embedded.stub().Tokenize(&tokenize_context, word, &tokens), IsOk());
  v1::DetokenizeRequest request;
  for (int i = 0; i < 600'000; ++i) request.mutable_ids()->MergeFrom(tokens.ids());
  v1::DetokenizeResponse text;
  grpc::ClientContext context;
  const auto status = embedded.stub().Detokenize(&context, request, &text);  // 4.8 MB
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("ids: the answer would take more than"));
}

}  // namespace
}  // namespace mechinterp
