#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "httplib.h"
#include "mechinterp/v1/analysis_service.grpc.pb.h"
#include "prometheus/text_serializer.h"
#include "services/common/keepalive.h"
#include "services/common/listen_address.h"
#include "services/common/metrics_server.h"
#include "services/common/rpc_outcome.h"
#include "services/common/rpc_server.h"
#include "services/common/status.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/spdlog.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

// Answers ListRuns, fails GetRun and GetCircuit, and waits in DeleteRun until it is told to end or
// cancelled.
class FakeService : public v1::AnalysisService::Service {
 public:
  grpc::Status ListRuns(grpc::ServerContext*, const v1::ListRunsRequest*, v1::ListRunsResponse*) override {
    return grpc::Status::OK;
  }
  grpc::Status GetRun(grpc::ServerContext*, const v1::GetRunRequest*, v1::GetRunResponse*) override {
    Violations violations;
    for (int i = 0; i < 500; ++i) violations.Add(absl::StrCat("field[", i, "]"), std::string(1000, 'x'));
    return ToGrpcStatus(ToStatus(violations));
  }
  grpc::Status GetCircuit(grpc::ServerContext*, const v1::GetCircuitRequest*,
                          v1::GetCircuitResponse*) override {
    return {grpc::StatusCode::INTERNAL, "two\nlines"};
  }
  grpc::Status DeleteRun(grpc::ServerContext* context, const v1::DeleteRunRequest*,
                         v1::DeleteRunResponse*) override {
    while (!context->IsCancelled()) {
      if (must_end) return {grpc::StatusCode::UNAVAILABLE, "the server is shutting down"};
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return grpc::Status::CANCELLED;
  }
  std::atomic<bool> must_end = false;
};

class Servers : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = RpcServer::Start(options_, {&service_});
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(Address(), grpc::InsecureChannelCredentials());
    stub_ = v1::AnalysisService::NewStub(channel_);
  }

  std::string Address() const { return absl::StrCat("127.0.0.1:", server_->port()); }

  grpc::Status ListRuns() {
    grpc::ClientContext context;
    v1::ListRunsResponse response;
    return stub_->ListRuns(&context, {}, &response);
  }

  // The standard health service, asked in its wire format: no request, and one
  // enum (1: SERVING, 2: NOT_SERVING) in the response.
  int Health() {
    grpc::GenericStub stub(channel_);
    grpc::CompletionQueue queue;
    grpc::ClientContext context;
    const grpc::Slice empty;
    const grpc::ByteBuffer request(&empty, 1);
    const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    EXPECT_THAT(status, IsOk());
    grpc::Slice slice;
    response.DumpToSingleSlice(&slice);
    return slice.size() == 2 ? slice.begin()[1] : -1;
  }

  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  RpcServerOptions options_{.listen_address = "127.0.0.1:0", .max_concurrent_rpcs = 2, .registry = registry_};
  FakeService service_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::AnalysisService::Stub> stub_;
};

TEST_F(Servers, ReportHealthAsTold) {
  EXPECT_EQ(Health(), 2);
  server_->SetServing(true);
  EXPECT_EQ(Health(), 1);
  server_->SetServing(false);
  EXPECT_EQ(Health(), 2);
}

TEST_F(Servers, NameTheAddressWhenThePortIsTaken) {
  options_.listen_address = Address();
  const auto second = RpcServer::Start(options_, {&service_});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), AllOf(HasSubstr(Address()), HasSubstr("in use")));

  const auto metrics = StartMetricsServer("127.0.0.1:0", registry_);
  ASSERT_THAT(metrics, IsOk());
  const std::string taken = absl::StrCat("127.0.0.1:", (*metrics)->port());
  const auto second_metrics = StartMetricsServer(taken, registry_);
  EXPECT_EQ(second_metrics.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second_metrics.status().message()), AllOf(HasSubstr(taken), HasSubstr("in use")));
}

TEST_F(Servers, RejectWhatIsNoAddress) {
  for (const std::string text : {"", "50051", "localhost", "localhost:", ":50051", "localhost:http",
                                 "localhost:70000", "::1:50051", "127.0.0.1:-1"}) {
    options_.listen_address = text;
    const auto server = RpcServer::Start(options_, {&service_});
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(absl::StrCat("\"", text, "\"")));
    EXPECT_EQ(StartMetricsServer(text, registry_).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
  EXPECT_EQ(ParseListenAddress("[::1]:80")->host, "::1");
}

TEST_F(Servers, ExposeMetricsOfEveryRpc) {
  const auto metrics = StartMetricsServer("127.0.0.1:0", registry_);
  ASSERT_THAT(metrics, IsOk());
  EXPECT_THAT(ListRuns(), IsOk());
  EXPECT_THAT(ListRuns(), IsOk());
  grpc::ClientContext context;
  v1::GetRunResponse response;
  EXPECT_FALSE(stub_->GetRun(&context, {}, &response).ok());
  server_->Shutdown(absl::Seconds(5));  // every RPC has been recorded

  httplib::Client client("127.0.0.1", (*metrics)->port());
  const auto page = client.Get("/metrics");
  ASSERT_TRUE(page);
  const std::string list = R"(grpc_method="ListRuns",grpc_service="mechinterp.v1.AnalysisService")";
  EXPECT_THAT(page->body, HasSubstr("grpc_server_handled_total{grpc_code=\"OK\"," + list + "} 2"));
  EXPECT_THAT(page->body, HasSubstr("grpc_server_handling_seconds_count{" + list + "} 2"));
  EXPECT_THAT(page->body, HasSubstr("grpc_server_in_flight{" + list + "} 0"));
  EXPECT_THAT(page->body, HasSubstr("grpc_code=\"INVALID_ARGUMENT\",grpc_method=\"GetRun\""));
}

TEST_F(Servers, CountADeadlineThatIsOverAsThat) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  v1::DeleteRunResponse response;
  EXPECT_EQ(stub_->DeleteRun(&context, {}, &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  server_->Shutdown(absl::Seconds(5));  // the RPC has been recorded
  const std::string page = prometheus::TextSerializer().Serialize(registry_->Collect());
  EXPECT_THAT(page, HasSubstr("grpc_code=\"DEADLINE_EXCEEDED\",grpc_method=\"DeleteRun\""));
  EXPECT_THAT(page, Not(HasSubstr("CANCELLED")));
}

TEST(OutcomeOf, IsCancelledOnlyBeforeTheDeadline) {
  using std::chrono::seconds;
  const auto begin = std::chrono::system_clock::now();
  const auto cancelled_after = [&](seconds time) {
    return OutcomeOf(grpc::StatusCode::CANCELLED, begin, begin + seconds(600), begin + time);
  };
  EXPECT_EQ(cancelled_after(seconds(300)), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(cancelled_after(seconds(596)), grpc::StatusCode::DEADLINE_EXCEEDED);  // within 1 %
  EXPECT_EQ(OutcomeOf(grpc::StatusCode::OK, begin, begin, begin + seconds(1)), grpc::StatusCode::OK);
  const auto never = std::chrono::system_clock::time_point::max();
  EXPECT_EQ(OutcomeOf(grpc::StatusCode::CANCELLED, begin, never, begin + seconds(1)),
            grpc::StatusCode::CANCELLED);
}

// gRPC's default allows a ping in five minutes and closes the connection at the third too many.
TEST_F(Servers, LetACallLiveForLongerThanThreeKeepaliveIntervals) {
  grpc::ChannelArguments arguments;
  PingServer(arguments, absl::Seconds(1));  // gRPC pings no more often than that
  const auto channel = grpc::CreateCustomChannel(Address(), grpc::InsecureChannelCredentials(), arguments);
  std::thread ender([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(5500));
    service_.must_end = true;
  });
  grpc::ClientContext context;
  v1::DeleteRunResponse response;
  const grpc::Status status = v1::AnalysisService::NewStub(channel)->DeleteRun(&context, {}, &response);
  ender.join();
  EXPECT_EQ(status.error_message(), "the server is shutting down");
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

TEST_F(Servers, LogEveryRpcAtDebug) {
  const CapturedLog log(spdlog::level::debug);
  EXPECT_THAT(ListRuns(), IsOk());
  grpc::ClientContext context;
  v1::GetRunResponse response;
  EXPECT_FALSE(stub_->GetRun(&context, {}, &response).ok());
  server_->Shutdown(absl::Seconds(5));  // every RPC has been logged
  EXPECT_THAT(log.text(),
              ContainsRegex("debug mechinterp.v1.AnalysisService/ListRuns from ipv4:127.0.0.1:[0-9]+: "
                            "[0-9.]+ ms, OK\n"));
  EXPECT_THAT(log.text(), ContainsRegex("debug [^ ]*/GetRun from [^ ]+: [0-9.]+ ms, INVALID_ARGUMENT: the "
                                        "request has several faults; field\\[0\\]: xxx"));
  EXPECT_THAT(log.text(), HasSubstr("; reason: INVALID_REQUEST\n"));
}

TEST_F(Servers, LogFaultsOfTheirOwnAlways) {
  const CapturedLog log(spdlog::level::info);
  EXPECT_THAT(ListRuns(), IsOk());
  grpc::ClientContext context;
  v1::GetCircuitResponse response;
  EXPECT_FALSE(stub_->GetCircuit(&context, {}, &response).ok());
  server_->Shutdown(absl::Seconds(5));
  EXPECT_THAT(log.text(), MatchesRegex("warning [^ ]*/GetCircuit from [^ ]+: [0-9.]+ ms, "
                                       "INTERNAL: two lines\n"));
}

TEST_F(Servers, DeliverManyLongViolationsWithinTheTrailers) {
  grpc::ClientContext context;
  v1::GetRunResponse response;
  const absl::Status status = FromGrpcStatus(stub_->GetRun(&context, {}, &response));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "INVALID_REQUEST");
}

TEST_F(Servers, CancelWhatDoesNotFinishWithinTheGrace) {
  grpc::Status result;
  std::thread caller([&] {
    grpc::ClientContext context;
    v1::DeleteRunResponse response;
    result = stub_->DeleteRun(&context, {}, &response);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const auto start = std::chrono::steady_clock::now();
  server_->Shutdown(absl::Milliseconds(50));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  caller.join();
  EXPECT_FALSE(result.ok());
  EXPECT_FALSE(ListRuns().ok());
}

TEST_F(Servers, LetHandlersSayWhyWhenTheGraceEnds) {
  grpc::Status result;
  std::thread caller([&] {
    grpc::ClientContext context;
    v1::DeleteRunResponse response;
    result = stub_->DeleteRun(&context, {}, &response);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  server_->Shutdown(absl::Milliseconds(50), [&] { service_.must_end = true; });
  caller.join();
  EXPECT_EQ(result.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(result.error_message(), "the server is shutting down");
}

TEST_F(Servers, EndBeforeTheGraceDoesWhenNothingIsInFlight) {
  EXPECT_THAT(ListRuns(), IsOk());
  server_->Shutdown(absl::Hours(1), [&] { service_.must_end = true; });
  EXPECT_FALSE(service_.must_end);
}

TEST(TerminationSignals, ReturnsTheSignal) {
  TerminationSignals signals;
  raise(SIGTERM);  // at this thread; those of other tests do not block it
  EXPECT_EQ(signals.Wait(), SIGTERM);
}

}  // namespace
}  // namespace mechinterp
