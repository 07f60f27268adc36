#include "clients/lib/analysis_client.h"

#include <algorithm>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/analysis_service.grpc.pb.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

// Five runs in pages of two, and one run in chunks of ten bytes, which breaks off the first time.
class PagedService final : public v1::AnalysisService::Service {
 public:
  grpc::Status ListRuns(grpc::ServerContext*, const v1::ListRunsRequest* request,
                        v1::ListRunsResponse* response) override {
    const int begin = request->page_token().empty() ? 0 : std::stoi(request->page_token());
    const int end = std::min(begin + 2, 5);
    for (int i = begin; i < end; ++i) response->add_runs()->set_run_id("run-" + std::to_string(i));
    if (circular) {
      response->set_next_page_token("2");
    } else if (end < 5) {
      response->set_next_page_token(std::to_string(end));
    }
    return grpc::Status::OK;
  }

  grpc::Status ExportRun(grpc::ServerContext*, const v1::ExportRunRequest* request,
                         grpc::ServerWriter<v1::ExportRunResponse>* writer) override {
    v1::ExportRunResponse response;
    response.mutable_description()->set_run_id(request->run_id());
    writer->Write(response);
    const std::string bytes = study.SerializeAsString();
    for (size_t i = 0; i < bytes.size(); i += 10) {
      response.set_study_chunk(bytes.substr(i, 10));
      writer->Write(response);
      if (attempts++ == 0) return {grpc::StatusCode::UNAVAILABLE, "gone"};
    }
    return grpc::Status::OK;
  }

  v1::Study study;
  bool circular = false;
  int attempts = 0;
};

class AnalysisClientTest : public ::testing::Test {
 protected:
  AnalysisClientTest() {
    server_ = grpc::ServerBuilder().RegisterService(&service_).BuildAndStart();
    client_ = std::make_unique<AnalysisClient>(v1::AnalysisService::NewStub(server_->InProcessChannel({})),
                                               absl::Minutes(1), RetryPolicy(), [](absl::Duration) {});
  }

  PagedService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<AnalysisClient> client_;
};

TEST_F(AnalysisClientTest, FollowsThePagesOfTheRuns) {
  const auto runs = client_->ListRuns();
  ASSERT_THAT(runs, IsOk());
  ASSERT_EQ(runs->runs_size(), 5);
  EXPECT_EQ(runs->runs(4).run_id(), "run-4");
  EXPECT_EQ(runs->next_page_token(), "");
}

TEST_F(AnalysisClientTest, DoesNotGoRoundInCircles) {
  service_.circular = true;
  EXPECT_EQ(client_->ListRuns().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(AnalysisClientTest, JoinsARunsChunks) {
  service_.study.mutable_patching()->set_layer_count(3);
  service_.study.mutable_patching()->add_pair_ids(std::string(1000, 'p'));
  const auto run = client_->GetRun("mine");
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->description().run_id(), "mine");
  EXPECT_EQ(run->study().SerializeAsString(), service_.study.SerializeAsString());
  EXPECT_GT(service_.attempts, 100);
}

}  // namespace
}  // namespace mechinterp
