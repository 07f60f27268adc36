#include "services/rpc/rpc_server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "httplib.h"
#include "prometheus/text_serializer.h"
#include "services/common/keepalive.h"
#include "services/common/metrics_server.h"
#include "services/common/status.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/spdlog.h"
#include "tests/services/rpc/fake_service.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

RpcServerOptions WithRegistry(const std::shared_ptr<prometheus::Registry>& registry) {
  RpcServerOptions options;
  options.registry = registry;
  return options;
}

class RpcServerTest : public ::testing::Test {
 protected:
  std::string Metrics() const { return prometheus::TextSerializer().Serialize(registry_->Collect()); }

  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  FakeServer server_{WithRegistry(registry_)};
  std::unique_ptr<v1::AnalysisService::Stub> stub_ = server_.NewStub();
};

TEST_F(RpcServerTest, ReportsHealthAsTold) {
  const auto channel = server_.NewChannel();
  EXPECT_EQ(AskHealth(channel), 2);
  server_.server().SetServing(true);
  EXPECT_EQ(AskHealth(channel), 1);
  server_.server().SetServing(false);
  EXPECT_EQ(AskHealth(channel), 2);
}

TEST_F(RpcServerTest, SaysThatItIsStartingUntilItServes) {
  FakeService service;
  const auto server = RpcServer::Listen({});
  ASSERT_THAT(server, IsOk());
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto channel = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", (*server)->port()),
                                                 grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::AnalysisService::NewStub(channel);
  const grpc::Status early = ListRuns(*stub);
  EXPECT_EQ(early.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ErrorReason(FromGrpcStatus(early)), "STARTING");
  EXPECT_EQ(AskHealth(channel), 2);
  (*server)->Serve({service.Methods()});
  EXPECT_THAT(ListRuns(*stub), IsOk());
}

TEST_F(RpcServerTest, NamesTheAddressWhenThePortIsTaken) {
  RpcServerOptions options;
  options.listen_address = server_.address();
  FakeService service;
  const auto second = RpcServer::Start(options, {service.Methods()});
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kUnavailable,
                               AllOf(HasSubstr(server_.address()), HasSubstr("in use"))));
}

TEST_F(RpcServerTest, RejectsWhatIsNoAddress) {
  FakeService service;
  for (const std::string text : {"", "50051", "localhost", "localhost:", ":50051", "localhost:http",
                                 "localhost:70000", "::1:50051", "127.0.0.1:-1"}) {
    RpcServerOptions options;
    options.listen_address = text;
    EXPECT_THAT(RpcServer::Start(options, {service.Methods()}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(absl::StrCat("\"", text, "\""))));
  }
}

// What other machines reach is not served in the clear by mistake.
TEST_F(RpcServerTest, ServesOtherMachinesOnlyWhenToldHow) {
  FakeService service;
  RpcServerOptions options;
  for (const std::string address : {"0.0.0.0:0", "[::]:0"}) {
    options.listen_address = address;
    options.insecure = false;
    EXPECT_THAT(RpcServer::Start(options, {service.Methods()}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("--tls-certificate"), HasSubstr("--insecure"))));
  }
  options.listen_address = "0.0.0.0:0";
  options.insecure = true;
  EXPECT_THAT(RpcServer::Start(options, {service.Methods()}), IsOk());
}

TEST_F(RpcServerTest, ServesAllAddressesOfAName) {
  FakeService service;
  RpcServerOptions options;
  options.listen_address = "localhost:0";
  const auto server = RpcServer::Start(options, {service.Methods()});
  ASSERT_THAT(server, IsOk());
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto stub = v1::AnalysisService::NewStub(grpc::CreateCustomChannel(
      absl::StrCat("127.0.0.1:", (*server)->port()), grpc::InsecureChannelCredentials(), arguments));
  EXPECT_THAT(ListRuns(*stub), IsOk());
}

TEST_F(RpcServerTest, ExposesMetricsOfEveryRpc) {
  const auto metrics = StartMetricsServer("127.0.0.1:0", registry_);
  ASSERT_THAT(metrics, IsOk());
  EXPECT_THAT(ListRuns(*stub_), IsOk());
  EXPECT_THAT(ListRuns(*stub_), IsOk());
  grpc::ClientContext context;
  v1::GetRunResponse response;
  EXPECT_FALSE(stub_->GetRun(&context, {}, &response).ok());
  server_.server().Shutdown(absl::Seconds(5));  // every RPC has been recorded

  httplib::Client client("127.0.0.1", (*metrics)->port());
  const auto page = client.Get("/metrics");
  ASSERT_TRUE(page);
  const std::string list =
      R"(grpc_method="ListRuns",grpc_service="mechinterp.v1.AnalysisService",grpc_type="unary")";
  EXPECT_THAT(page->body, HasSubstr("grpc_server_started_total{" + list + "} 2"));
  EXPECT_THAT(page->body, HasSubstr("grpc_server_handled_total{grpc_code=\"OK\"," + list + "} 2"));
  EXPECT_THAT(page->body, HasSubstr("grpc_server_msg_received_total{" + list + "} 2"));
  EXPECT_THAT(page->body, HasSubstr("grpc_server_msg_sent_total{" + list + "} 2"));
  EXPECT_THAT(page->body, HasSubstr("grpc_server_handling_seconds_count{" + list + "} 2"));
  EXPECT_THAT(page->body, HasSubstr("grpc_server_in_flight{" + list + "} 0"));
  EXPECT_THAT(page->body, HasSubstr("grpc_code=\"INVALID_ARGUMENT\",grpc_method=\"GetRun\""));
  EXPECT_THAT(page->body, HasSubstr("mechinterp_client_requests_total{client=\"127.0.0.1\"} 3"));
}

TEST_F(RpcServerTest, HasOneSeriesForAllMethodsThatItDoesNotHave) {
  const auto channel = server_.NewChannel();
  const std::string earlier = Metrics();
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(CallRaw(channel, absl::StrCat("/made.up.Service", i, "/Method"), "").error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
  }
  server_.server().Shutdown(absl::Seconds(5));
  const std::string page = Metrics();
  EXPECT_THAT(page, HasSubstr("grpc_code=\"UNIMPLEMENTED\",grpc_method=\"unknown\",grpc_service=\"unknown\","
                              "grpc_type=\"unary\"} 50"));
  EXPECT_THAT(page, Not(HasSubstr("made.up")));
  EXPECT_LE(std::count(page.begin(), page.end(), '\n'),
            std::count(earlier.begin(), earlier.end(), '\n') + 10);
}

TEST_F(RpcServerTest, CountsADeadlineThatIsOverAsThat) {
  EXPECT_EQ(DeleteRun(*stub_, absl::Milliseconds(300)).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  server_.server().Shutdown(absl::Seconds(5));  // the RPC has been recorded
  EXPECT_THAT(Metrics(), HasSubstr("grpc_code=\"DEADLINE_EXCEEDED\",grpc_method=\"DeleteRun\""));
  EXPECT_THAT(Metrics(), Not(HasSubstr("CANCELLED")));
}

// gRPC's default allows a ping in five minutes and closes the connection at the third too many.
TEST_F(RpcServerTest, LetsACallLiveForLongerThanThreeKeepaliveIntervals) {
  grpc::ChannelArguments arguments;
  PingServer(arguments, absl::Seconds(1));  // gRPC pings no more often than that
  const auto stub = v1::AnalysisService::NewStub(server_.NewChannel(arguments));
  std::thread ender([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(5500));
    server_.service().must_end = true;
  });
  const grpc::Status status = DeleteRun(*stub);
  ender.join();
  EXPECT_EQ(status.error_message(), "told to end");
}

// What a handler throws ends its call, not the server.
TEST_F(RpcServerTest, OutlivesWhatHandlersThrow) {
  for (const auto& [exception, code] : {std::pair("bad_alloc", grpc::StatusCode::RESOURCE_EXHAUSTED),
                                        std::pair("a mistake", grpc::StatusCode::INTERNAL)}) {
    server_.service().exception = exception;
    grpc::ClientContext context;
    v1::GetRankingResponse response;
    EXPECT_EQ(stub_->GetRanking(&context, {}, &response).error_code(), code);
    EXPECT_THAT(ListRuns(*stub_), IsOk());
  }
}

// Bytes that are no message of the type: refused, and told so.
TEST_F(RpcServerTest, RefusesWhatIsNoMessage) {
  const auto channel = server_.NewChannel();
  for (const std::string& bytes : {std::string(11, '\xff'), std::string("\x0a\xff")}) {
    const grpc::Status status = CallRaw(channel, "/mechinterp.v1.AnalysisService/ListRuns", bytes);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(ErrorReason(FromGrpcStatus(status)), "MALFORMED_REQUEST");
  }
}

// Megabytes of gzip may be gigabytes: nothing compressed is taken, nor inflated.
TEST_F(RpcServerTest, RefusesCompressedRequests) {
  for (const grpc_compression_algorithm algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    v1::ImportRunRequest request;
    request.set_run_id(std::string(10'000'000, 'a'));
    v1::ImportRunResponse response;
    EXPECT_EQ(stub_->ImportRun(&context, request, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  }
  EXPECT_THAT(ListRuns(*stub_), IsOk());
}

// Replaces the default logger and keeps what is written at a level and above.
class CapturedLog {
 public:
  explicit CapturedLog(spdlog::level::level_enum level) : previous_(spdlog::default_logger()) {
    auto logger =
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_pattern("%l %v");
    logger->set_level(level);
    spdlog::set_default_logger(std::move(logger));
  }
  ~CapturedLog() { spdlog::set_default_logger(previous_); }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> previous_;
};

TEST_F(RpcServerTest, LogsALineForEveryRequest) {
  const CapturedLog log(spdlog::level::info);
  EXPECT_THAT(ListRuns(*stub_), IsOk());
  grpc::ClientContext context;
  context.AddMetadata("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  v1::GetRunResponse response;
  EXPECT_FALSE(stub_->GetRun(&context, {}, &response).ok());
  server_.server().Shutdown(absl::Seconds(5));  // every RPC has been logged
  EXPECT_THAT(log.text(),
              ContainsRegex("info request=1 method=mechinterp.v1.AnalysisService/ListRuns client=127.0.0.1 "
                            "peer=127.0.0.1:[0-9]+ code=OK ms=[0-9.]+ queued_ms=[0-9.]+ sent=1\n"));
  EXPECT_THAT(log.text(), ContainsRegex("info request=2 [^ ]*/GetRun [^\n]*code=INVALID_ARGUMENT [^\n]*"
                                        "trace=0af7651916cd43dd8448eb211c80319c reason=INVALID_REQUEST "
                                        "error=\"field\\[0\\]: xxx"));
}

TEST_F(RpcServerTest, LogsFaultsOfItsOwnAsWarnings) {
  const CapturedLog log(spdlog::level::warn);
  EXPECT_THAT(ListRuns(*stub_), IsOk());
  grpc::ClientContext context;
  v1::GetCircuitResponse response;
  EXPECT_FALSE(stub_->GetCircuit(&context, {}, &response).ok());
  server_.server().Shutdown(absl::Seconds(5));
  EXPECT_THAT(log.text(),
              MatchesRegex("warning [^\n]*/GetCircuit [^\n]*code=INTERNAL [^\n]*error=\"two\\\\nlines\"\n"));
}

TEST(FormatRecord, WritesJsonThatIsOneLineWhateverClientsSent) {
  RequestRecord record;
  record.id = 7;
  record.client = "al\"ice\n";
  record.method = "s/M";
  record.status = absl::InvalidArgumentError("bad \x01 text");
  record.facts.prompt_tokens = 3;
  record.facts.prompt = "secret";
  EXPECT_EQ(
      FormatRecord(record, {.as_json = true}),
      R"({"request":7,"method":"s/M","client":"al\"ice\n","peer":"","code":"INVALID_ARGUMENT","ms":0.000,)"
      R"("queued_ms":0.000,"prompt_tokens":3,"error":"bad \u0001 text"})");
  EXPECT_THAT(FormatRecord(record, {}), Not(HasSubstr("secret")));
  EXPECT_THAT(FormatRecord(record, {.with_prompts = true}), HasSubstr("prompt=secret"));
}

TEST_F(RpcServerTest, DeliversManyLongViolationsWithinTheTrailers) {
  grpc::ClientContext context;
  v1::GetRunResponse response;
  const absl::Status status = FromGrpcStatus(stub_->GetRun(&context, {}, &response));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "INVALID_REQUEST");
}

TEST_F(RpcServerTest, CancelsWhatDoesNotFinishWithinTheGrace) {
  grpc::Status result;
  std::thread caller([&] { result = DeleteRun(*stub_); });
  server_.service().WaitForDeletes(1);
  const auto start = std::chrono::steady_clock::now();
  server_.server().Shutdown(absl::Milliseconds(50));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  caller.join();
  EXPECT_FALSE(result.ok());
  EXPECT_FALSE(ListRuns(*stub_, absl::Seconds(2)).ok());
}

TEST_F(RpcServerTest, LetsHandlersSayWhyWhenTheGraceEnds) {
  grpc::Status result;
  std::thread caller([&] { result = DeleteRun(*stub_); });
  server_.service().WaitForDeletes(1);
  server_.server().Shutdown(absl::Milliseconds(50), [&] { server_.service().must_end = true; });
  caller.join();
  EXPECT_EQ(result.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(result.error_message(), "told to end");
}

TEST_F(RpcServerTest, EndsBeforeTheGraceDoesWhenNothingIsInFlight) {
  EXPECT_THAT(ListRuns(*stub_), IsOk());  // and its connection stays
  const auto start = std::chrono::steady_clock::now();
  server_.server().Shutdown(absl::Hours(1), [&] { server_.service().must_end = true; });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  EXPECT_FALSE(server_.service().must_end);
}

// While it ends, what still comes is told so.
TEST_F(RpcServerTest, RefusesNewCallsWithAReasonWhileItEnds) {
  std::thread caller([&] { DeleteRun(*stub_); });
  server_.service().WaitForDeletes(1);
  std::thread ender([&] { server_.server().Shutdown(absl::Seconds(20)); });
  grpc::Status status;
  do {
    status = ListRuns(*stub_);
  } while (status.ok());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ErrorReason(FromGrpcStatus(status)), "SHUTTING_DOWN");
  server_.service().must_end = true;
  caller.join();
  ender.join();
}

}  // namespace
}  // namespace mechinterp
