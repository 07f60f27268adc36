#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/analysis_service.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "tests/clients/commands/tool_fixture.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using testing::RunToolWith;
using testing::TestFolder;
using testing::ToolOutcome;

class FakeAnalysisService final : public v1::AnalysisService::Service {
 public:
  grpc::Status ImportRun(grpc::ServerContext*, const v1::ImportRunRequest* request,
                         v1::ImportRunResponse* response) override {
    imported = *request;
    response->set_run_id(request->run_id().empty() ? "run-1" : request->run_id());
    response->set_http_address(http_address);
    return grpc::Status::OK;
  }
  grpc::Status RenderDashboard(grpc::ServerContext*, const v1::RenderDashboardRequest* request,
                               grpc::ServerWriter<v1::RenderDashboardResponse>* writer) override {
    for (const std::string& part : {std::string("<html>"), request->run_id(), std::string("</html>")}) {
      v1::RenderDashboardResponse response;
      response.set_html(part);
      writer->Write(response);
    }
    return grpc::Status::OK;
  }

  v1::ImportRunRequest imported;
  std::string http_address = "127.0.0.1:9";
};

class ImportTest : public ::testing::Test {
 protected:
  ImportTest() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
  }

  ToolOutcome Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"import", "--analysis-server", "127.0.0.1:" + std::to_string(port_),
                                         "--output-dir", folder_.File("")});
    return RunToolWith(arguments);
  }

  TestFolder folder_;
  FakeAnalysisService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(ImportTest, SendsTheResultsThatAreThere) {
  std::filesystem::create_directories(folder_.File("results"));
  folder_.Write("results/01_baseline_results.json", R"({"harmful": {"rate": 0.5}})");
  folder_.Write("results/04_compare_results.json", R"({"other_model": {"name": "quantized"}})");
  const ToolOutcome outcome = Run({"--run-id", "mine", "--dashboard-url", "http://host:1"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "http://host:1/runs/mine\n");
  EXPECT_EQ(service_.imported.study().baseline().harmful().rate(), 0.5);
  EXPECT_EQ(service_.imported.study().compare().other_model().name(), "quantized");
  EXPECT_FALSE(service_.imported.study().has_patching());
}

TEST_F(ImportTest, PrintsWhereTheServiceReallyServesPages) {
  std::filesystem::create_directories(folder_.File("results"));
  folder_.Write("results/03_ablation_results.json", "{}");
  service_.http_address = "10.1.2.3:8090";
  EXPECT_EQ(Run({}).out, "http://10.1.2.3:8090/runs/run-1\n");
  service_.http_address = "0.0.0.0:8090";  // every interface, so also the one that was asked
  EXPECT_EQ(Run({}).out, "http://127.0.0.1:8090/runs/run-1\n");
  service_.http_address = "[::]:8090";
  EXPECT_EQ(Run({}).out, "http://127.0.0.1:8090/runs/run-1\n");
  service_.http_address = "";
  const ToolOutcome without_pages = Run({});
  EXPECT_EQ(without_pages.out, "run-1\n");
  EXPECT_THAT(without_pages.err, HasSubstr("serves no pages"));
}

TEST_F(ImportTest, PrintsOneJsonDocument) {
  std::filesystem::create_directories(folder_.File("results"));
  folder_.Write("results/03_ablation_results.json", "{}");
  const auto report = nlohmann::json::parse(Run({"--json"}).out);
  EXPECT_EQ(report["run_id"], "run-1");
  EXPECT_EQ(report["dashboard_url"], "http://127.0.0.1:9/runs/run-1");
}

TEST_F(ImportTest, SavesTheDashboard) {
  std::filesystem::create_directories(folder_.File("results"));
  folder_.Write("results/03_ablation_results.json", "{}");
  const std::string path = folder_.File("figures/dashboard.html");
  EXPECT_EQ(Run({"--output", path}).out, path + "\n");
  EXPECT_EQ(TestFolder::Read(path), "<html>run-1</html>");
}

TEST_F(ImportTest, SaysWhatToRunWhenThereIsNothing) {
  const ToolOutcome outcome = Run({});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("abstract baseline"));
}

}  // namespace
}  // namespace mechinterp
