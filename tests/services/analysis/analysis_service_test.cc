#include "services/analysis/analysis_service.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/analysis_service.grpc.pb.h"
#include "services/common/status.h"
#include "services/rpc/rpc_server.h"
#include "tests/services/analysis/studies.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// The service behind a real server on loopback.
class AnalysisServiceTest : public ::testing::Test {
 protected:
  AnalysisServiceTest() {
    auto store = RunStore::Open(folder_.File("runs.sqlite"));
    EXPECT_THAT(store, IsOk());
    store_ = *std::move(store);
    service_ = std::make_unique<AnalysisServiceImpl>(store_.get());
    server_ = *RpcServer::Start({}, {service_->Methods()});
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = v1::AnalysisService::NewStub(grpc::CreateCustomChannel(
        absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials(), arguments));
  }

  template <typename Request, typename Response>
  using Method = grpc::Status (v1::AnalysisService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

  template <typename Request, typename Response>
  absl::Status Call(Method<Request, Response> method, const std::string& request, Response& response) {
    grpc::ClientContext context;
    return FromGrpcStatus((stub_.get()->*method)(&context, FromText<Request>(request), &response));
  }

  // Response of a call that must succeed.
  template <typename Request, typename Response>
  Response Ask(Method<Request, Response> method, const std::string& request) {
    Response response;
    const absl::Status status = Call(method, request, response);
    EXPECT_THAT(status, IsOk());
    return response;
  }

  // Status of a call that must fail.
  template <typename Request, typename Response>
  absl::Status Fail(Method<Request, Response> method, const std::string& request) {
    Response response;
    const absl::Status status = Call(method, request, response);
    EXPECT_FALSE(status.ok()) << request;
    return status;
  }

  // Reads a run by ExportRun, and returns how many messages it took.
  int Export(const std::string& request, v1::GetRunResponse& run) {
    grpc::ClientContext context;
    const auto reader = stub_->ExportRun(&context, FromText<v1::ExportRunRequest>(request));
    v1::ExportRunResponse response;
    std::string study;
    int messages = 0;
    while (reader->Read(&response)) {
      EXPECT_EQ(response.has_description(), messages++ == 0);
      EXPECT_LE(response.study_chunk().size(), 1u << 20);
      if (response.has_description()) *run.mutable_description() = response.description();
      study += response.study_chunk();
    }
    EXPECT_THAT(reader->Finish(), IsOk());
    EXPECT_TRUE(run.mutable_study()->ParseFromString(study));
    return messages;
  }

  void ImportSmallStudy() {
    v1::ImportRunRequest request;
    request.set_run_id("small");
    *request.mutable_study() = SmallStudy();
    grpc::ClientContext context;
    v1::ImportRunResponse response;
    EXPECT_THAT(stub_->ImportRun(&context, request, &response), IsOk());
    EXPECT_EQ(response.run_id(), "small");
  }

  static std::vector<std::string> FieldsAtFault(const absl::Status& status) {
    google::rpc::BadRequest bad_request;
    const auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
    if (payload.has_value()) bad_request.ParseFromString(std::string(*payload));
    std::vector<std::string> fields;
    for (const auto& violation : bad_request.field_violations()) fields.push_back(violation.field());
    return fields;
  }

  using Stub = v1::AnalysisService::Stub;
  ScratchFolder folder_;
  std::unique_ptr<RunStore> store_;
  std::unique_ptr<AnalysisServiceImpl> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<Stub> stub_;
};

TEST_F(AnalysisServiceTest, ImportsListsAndDeletesRuns) {
  EXPECT_EQ(Ask(&Stub::ListRuns, "").runs_size(), 0);
  ImportSmallStudy();
  const auto made = Ask(&Stub::ImportRun, "study { baseline {} }");
  EXPECT_THAT(made.run_id(), MatchesRegex("[0-9]{8}-[0-9]{6}-[0-9a-f]{8}"));

  const auto list = Ask(&Stub::ListRuns, "");
  ASSERT_EQ(list.runs_size(), 2);
  EXPECT_EQ(list.runs(0).run_id(), made.run_id());
  EXPECT_EQ(Ask(&Stub::GetRun, "run_id: 'small'").study().patching().layer_count(), 3);
  Ask(&Stub::DeleteRun, "run_id: 'small'");
  EXPECT_EQ(Fail(&Stub::GetRun, "run_id: 'small'").code(), absl::StatusCode::kNotFound);
}

TEST_F(AnalysisServiceTest, RanksHeadsAndNeuronGroups) {
  ImportSmallStudy();
  const auto ranking = Ask(&Stub::GetRanking, "run_id: 'small'");
  ASSERT_EQ(ranking.components_size(), 3);
  EXPECT_EQ(ranking.components(0).component().name(), "L1.H0");
  EXPECT_EQ(ranking.components(1).component().name(), "L2.N0-3");
  ASSERT_EQ(ranking.layers_size(), 3);
  EXPECT_DOUBLE_EQ(ranking.layers(2).importance(), 0.625);

  const auto heads = Ask(&Stub::GetRanking, "run_id: 'small' limit: 1 kind: COMPONENT_KIND_HEAD");
  ASSERT_EQ(heads.components_size(), 1);
  EXPECT_EQ(heads.components(0).component().name(), "L1.H0");
  EXPECT_DOUBLE_EQ(heads.layers(2).importance(), 0.625);  // the layers stay whole
}

TEST_F(AnalysisServiceTest, ListsRunsInPages) {
  for (int i = 0; i < 5; ++i)
    Ask(&Stub::ImportRun, absl::StrCat("run_id: 'run-", i, "' study { baseline {} }"));
  const auto first = Ask(&Stub::ListRuns, "page_size: 3");
  ASSERT_EQ(first.runs_size(), 3);
  EXPECT_EQ(first.runs(2).run_id(), "run-2");
  const auto second =
      Ask(&Stub::ListRuns, absl::StrCat("page_size: 3 page_token: '", first.next_page_token(), "'"));
  ASSERT_EQ(second.runs_size(), 2);
  EXPECT_EQ(second.runs(1).run_id(), "run-0");
  EXPECT_EQ(second.next_page_token(), "");
  EXPECT_EQ(Ask(&Stub::ListRuns, "").runs_size(), 5);
  EXPECT_THAT(FieldsAtFault(Fail(&Stub::ListRuns, "page_size: -1 page_token: '!'")),
              ElementsAre("page_size", "page_token"));
}

TEST_F(AnalysisServiceTest, ListsLongNamesInPagesOfOneMebibyte) {
  v1::Study study;
  study.mutable_baseline()->mutable_provenance()->mutable_model()->set_name(std::string(100'000, 'm'));
  for (int i = 0; i < 50; ++i) ASSERT_THAT(store_->Import(absl::StrCat("run-", i), study), IsOk());
  int runs = 0;
  std::string token;
  do {
    const auto page = Ask(&Stub::ListRuns, absl::StrCat("page_token: '", token, "'"));
    EXPECT_LE(page.ByteSizeLong(), (1u << 20) + 100);
    runs += page.runs_size();
    token = page.next_page_token();
  } while (!token.empty());
  EXPECT_EQ(runs, 50);
}

TEST_F(AnalysisServiceTest, RanksInPages) {
  ImportSmallStudy();
  const auto first = Ask(&Stub::GetRanking, "run_id: 'small' limit: 2");
  ASSERT_EQ(first.components_size(), 2);
  const auto second = Ask(&Stub::GetRanking, absl::StrCat("run_id: 'small' limit: 2 page_token: '",
                                                          first.next_page_token(), "'"));
  ASSERT_EQ(second.components_size(), 1);
  EXPECT_EQ(second.components(0).component().name(), "L2.H1");
  EXPECT_EQ(second.layers_size(), 0);
  EXPECT_EQ(second.next_page_token(), "");
}

// Some 6 MB of components.
TEST_F(AnalysisServiceTest, ALargeRunComesInChunks) {
  v1::Study study = SmallStudy();
  for (int i = 0; i < 30'000; ++i) {
    v1::RankedComponent& ranked = *study.mutable_patching()->add_ranking();
    ranked.mutable_component()->set_name(absl::StrCat("component ", i, std::string(200, ' ')));
    ranked.mutable_component()->set_kind(v1::COMPONENT_KIND_HEAD);
  }
  ASSERT_THAT(store_->Import("large", study), IsOk());
  const absl::Status whole = Fail(&Stub::GetRun, "run_id: 'large'");
  EXPECT_EQ(whole.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(whole), "RUN_TOO_LARGE");
  const auto ranking = Ask(&Stub::GetRanking, "run_id: 'large' limit: 4000000000");
  EXPECT_LE(ranking.ByteSizeLong(), (1u << 20) + 1000);
  EXPECT_NE(ranking.next_page_token(), "");

  v1::GetRunResponse run;
  EXPECT_GE(Export("run_id: 'large'", run), 7);
  EXPECT_EQ(run.description().run_id(), "large");
  EXPECT_EQ(run.study().SerializeAsString(), study.SerializeAsString());
  Export("run_id: 'large' experiments: EXPERIMENT_KIND_BASELINE", run);
  EXPECT_TRUE(run.study().has_baseline());
  EXPECT_FALSE(run.study().has_patching());
}

TEST_F(AnalysisServiceTest, AnswersTheMeasuredCircuit) {
  ImportSmallStudy();
  const auto circuit = Ask(&Stub::GetCircuit, "run_id: 'small'");
  ASSERT_EQ(circuit.nodes_size(), 3);
  EXPECT_EQ(circuit.nodes(0).name(), "L1.H0");
  EXPECT_EQ(circuit.nodes(0).noising().upper(), 0.75);
  EXPECT_EQ(circuit.nodes(1).name(), "L2.H1");
  ASSERT_EQ(circuit.edges_size(), 3);
  EXPECT_EQ(circuit.edges(0).receiver(), "L1.v0");
  EXPECT_THAT(circuit.edges(2).conditional_on(), ElementsAre("L1.H0"));

  const auto leaders = Ask(&Stub::GetCircuit, "run_id: 'small' component_count: 1 edge_count: 1");
  ASSERT_EQ(leaders.nodes_size(), 1);
  EXPECT_EQ(leaders.nodes(0).name(), "L1.H0");
  ASSERT_EQ(leaders.edges_size(), 1);
  EXPECT_EQ(leaders.edges(0).receiver(), "L2.mlp_in");
}

// The most that CheckStudy lets in.
TEST_F(AnalysisServiceTest, NoCircuitOutgrowsAMessage) {
  v1::Study study = SmallStudy();
  v1::CircuitResults& results = *study.mutable_circuit();
  v1::MeasuredNode node = results.nodes(2);
  v1::MeasuredEdge edge = results.edges(2);
  while (node.backs_up_size() < 64) node.add_backs_up("L9999.N16777215");
  while (edge.conditional_on_size() < 64) edge.add_conditional_on("L9999.N16777215");
  for (int i = 0; i < 1000; ++i) {
    *results.add_nodes() = node;
    *results.add_edges() = edge;
  }
  grpc::ClientContext context;
  v1::ImportRunRequest request;
  request.set_run_id("large");
  *request.mutable_study() = study;
  v1::ImportRunResponse imported;
  ASSERT_THAT(stub_->ImportRun(&context, request, &imported), IsOk());
  const auto circuit = Ask(&Stub::GetCircuit, "run_id: 'large' component_count: 200 edge_count: 400");
  EXPECT_EQ(circuit.nodes_size(), 200);
  EXPECT_EQ(circuit.edges_size(), 400);
  EXPECT_LE(circuit.ByteSizeLong(), 2u << 20);
}

TEST_F(AnalysisServiceTest, StreamsTheDashboardInChunks) {
  ImportSmallStudy();
  grpc::ClientContext context;
  v1::RenderDashboardRequest request;
  request.set_run_id("small");
  const auto reader = stub_->RenderDashboard(&context, request);
  std::string html;
  int chunks = 0;
  v1::RenderDashboardResponse response;
  while (reader->Read(&response)) {
    EXPECT_LE(response.html().size(), 1 << 20);
    html += response.html();
    ++chunks;
  }
  EXPECT_THAT(reader->Finish(), IsOk());
  EXPECT_GE(chunks, 2);
  EXPECT_THAT(html, ::testing::StartsWith("<!doctype html>"));
  EXPECT_THAT(html, ::testing::EndsWith("</html>\n"));
}

TEST_F(AnalysisServiceTest, NamesEveryFieldAtFault) {
  const absl::Status status = Fail(&Stub::ImportRun, R"(run_id: "a/b" study { patching {} })");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldsAtFault(status), ElementsAre("run_id", "study.patching.layer_count"));
  EXPECT_THAT(FieldsAtFault(Fail(&Stub::ImportRun, "run_id: 'a'")), ElementsAre("study"));
  EXPECT_THAT(FieldsAtFault(Fail(&Stub::GetRun, "")), ElementsAre("run_id"));
  EXPECT_THAT(FieldsAtFault(Fail(&Stub::DeleteRun, std::string("run_id: '") + std::string(65, 'x') + "'")),
              ElementsAre("run_id"));
  EXPECT_THAT(FieldsAtFault(Fail(&Stub::GetRanking, "kind: COMPONENT_KIND_MLP_OUT")),
              ElementsAre("run_id", "kind"));
  EXPECT_THAT(
      FieldsAtFault(Fail(&Stub::GetCircuit, "run_id: 'a' component_count: 4000000000 edge_count: 401")),
      ElementsAre("component_count", "edge_count"));
}

TEST_F(AnalysisServiceTest, TellsUnknownRunsAndRunsWithoutResults) {
  Ask(&Stub::ImportRun, "run_id: 'bare' study { baseline {} }");
  EXPECT_EQ(ErrorReason(Fail(&Stub::GetRanking, "run_id: 'none'")), "RUN_NOT_FOUND");
  EXPECT_EQ(ErrorReason(Fail(&Stub::GetCircuit, "run_id: 'none'")), "RUN_NOT_FOUND");
  const absl::Status ranking = Fail(&Stub::GetRanking, "run_id: 'bare'");
  EXPECT_EQ(ranking.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(ranking), "NO_PATCHING_RESULTS");
  const absl::Status circuit = Fail(&Stub::GetCircuit, "run_id: 'bare'");
  EXPECT_EQ(circuit.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(circuit), "NO_CIRCUIT_RESULTS");
  EXPECT_THAT(std::string(circuit.message()), HasSubstr("run \"bare\" has no circuit results"));
  EXPECT_EQ(Fail(&Stub::GetRun, "run_id: 'none'").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Fail(&Stub::DeleteRun, "run_id: 'none'").code(), absl::StatusCode::kNotFound);
  grpc::ClientContext context;
  v1::RenderDashboardRequest request;
  request.set_run_id("none");
  v1::RenderDashboardResponse response;
  const auto reader = stub_->RenderDashboard(&context, request);
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(FromGrpcStatus(reader->Finish()).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace mechinterp
