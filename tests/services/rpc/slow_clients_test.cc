// Clients that do not read, do not send, or say nothing: whoever they are, others are served.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "services/common/status.h"
#include "tests/services/rpc/fake_service.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

RpcServerOptions SmallServer(absl::Duration stall) {
  RpcServerOptions options;
  options.registry = std::make_shared<prometheus::Registry>();
  options.dispatch.work.max_running = 4;
  options.dispatch.work.max_queued = 40;
  options.dispatch.work.linger = absl::Milliseconds(20);
  options.dispatch.lookups.max_running = 2;
  options.dispatch.lookups.linger = absl::Milliseconds(20);
  options.dispatch.limits.stall = stall;
  return options;
}

std::string MetricsOf(const RpcServerOptions& options) {
  return prometheus::TextSerializer().Serialize(options.registry->Collect());
}

// How many threads there are but for those of gRPC, which have names of their own, and whose
// number does not depend on that of the calls.
int CountThreads() {
  int count = 0;
  std::string own;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(entry.path() / "comm");
    std::string name;
    std::getline(file, name);
    if (own.empty()) own = name;  // the first is the main thread
    count += name == own;
  }
  return count;
}

template <typename Predicate>
bool Within(absl::Duration patience, Predicate predicate) {
  const absl::Time end = absl::Now() + patience;
  while (!predicate()) {
    if (absl::Now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

// A stream of which the first message is read, and no other.
struct UnreadStream {
  explicit UnreadStream(v1::AnalysisService::Stub& stub) : reader(stub.ExportRun(&context, {})) {
    v1::ExportRunResponse first;
    EXPECT_TRUE(reader->Read(&first));
  }
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::ExportRunResponse>> reader;
};

// More of them than the server has places: each waits without keeping a place, and is ended.
TEST(SlowClients, DoNotKeepOthersOut) {
  const RpcServerOptions options = SmallServer(absl::Seconds(2));
  FakeServer server(options);
  const auto slow = server.NewStub(), quick = server.NewStub();
  std::vector<std::unique_ptr<UnreadStream>> streams;
  for (int i = 0; i < 12; ++i) streams.push_back(std::make_unique<UnreadStream>(*slow));
  server.service().must_end = true;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(DeleteRun(*quick, absl::Seconds(5)).error_message(), "told to end");
    EXPECT_THAT(ListRuns(*quick, absl::Seconds(5)), IsOk());
  }
  EXPECT_TRUE(Within(absl::Seconds(10), [&] { return server.service().streams_in_handlers == 0; }));
  for (const auto& stream : streams) {
    v1::ExportRunResponse message;
    while (stream->reader->Read(&message)) {
    }
    EXPECT_FALSE(stream->reader->Finish().ok());
  }
  EXPECT_TRUE(Within(absl::Seconds(5), [&] {
    return MetricsOf(options).find("mechinterp_rejected_total{reason=\"CLIENT_STALLED\"} 12") !=
           std::string::npos;
  })) << MetricsOf(options);
}

// What is complete waits for its reader without a thread, however many there are.
TEST(SlowClients, CostNoThreadsWhereTheAnswerIsComplete) {
  FakeServer server(SmallServer(absl::Minutes(5)));
  const auto stub = server.NewStub();
  server.service().must_end = true;
  ASSERT_EQ(DeleteRun(*stub).error_message(), "told to end");
  const int before = CountThreads();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::RenderDashboardResponse>>> readers;
  for (int i = 0; i < 60; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub->RenderDashboard(contexts.back().get(), {}));
    v1::RenderDashboardResponse first;
    ASSERT_TRUE(readers.back()->Read(&first));
  }
  EXPECT_TRUE(Within(absl::Seconds(5), [&] { return CountThreads() <= before; })) << CountThreads();
  EXPECT_EQ(DeleteRun(*stub).error_message(), "told to end");
  // And one that begins to read gets all of it.
  int count = 1;
  v1::RenderDashboardResponse message;
  while (readers.front()->Read(&message)) ++count;
  EXPECT_THAT(readers.front()->Finish(), IsOk());
  EXPECT_EQ(count, 100);
  for (const auto& context : contexts) context->TryCancel();
}

TEST(SlowClients, AreServedToTheEndWhenTheyAreJustSlow) {
  FakeServer server(SmallServer(absl::Seconds(30)));
  server.service().stream_count = 12;
  const auto stub = server.NewStub();
  grpc::ClientContext context;
  const auto reader = stub->ExportRun(&context, {});
  v1::ExportRunResponse message;
  int count = 0;
  while (reader->Read(&message)) {
    EXPECT_EQ(message.study_chunk(), std::string(1 << 20, static_cast<char>(count++)));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_THAT(reader->Finish(), IsOk());
  EXPECT_EQ(count, 12);
}

// The calls of one client fill its queue, not another's.
TEST(SlowClients, AreHeldToTheirShareOfTheQueue) {
  FakeServer server(SmallServer(absl::Minutes(1)));
  const auto stub = server.NewStub();
  std::vector<std::thread> callers;
  std::atomic<int> refused = 0, ended = 0;
  // 4 run, 20 wait (half of 40); the rest is refused. All come from one address: one client.
  for (int i = 0; i < 30; ++i) {
    callers.emplace_back([&] {
      const grpc::Status status = DeleteRun(*stub, absl::Seconds(30));
      (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED ? refused : ended) += 1;
      if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
        EXPECT_EQ(ErrorReason(FromGrpcStatus(status)), "CLIENT_QUEUE_FULL");
        EXPECT_TRUE(RetryDelay(FromGrpcStatus(status)).has_value());
      }
    });
  }
  EXPECT_TRUE(Within(absl::Seconds(10), [&] { return refused == 6; })) << refused;
  EXPECT_THAT(ListRuns(*stub), IsOk());
  server.service().must_end = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(ended, 24);
  EXPECT_EQ(refused, 6);
}

// It never begins, and is told and counted as what it is.
TEST(SlowClients, EndInTheQueueWhenTheirDeadlineIsOver) {
  const RpcServerOptions options = SmallServer(absl::Minutes(1));
  FakeServer server(options);
  const auto stub = server.NewStub();
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) callers.emplace_back([&] { DeleteRun(*stub, absl::Seconds(30)); });
  server.service().WaitForDeletes(4);
  EXPECT_EQ(DeleteRun(*stub, absl::Milliseconds(200)).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // Before there is room for it to begin.
  EXPECT_TRUE(Within(absl::Seconds(10), [&] {
    return MetricsOf(options).find("grpc_code=\"DEADLINE_EXCEEDED\",grpc_method=\"DeleteRun\"") !=
           std::string::npos;
  }));
  server.service().must_end = true;
  for (std::thread& caller : callers) caller.join();
}

int Connect(int port) {
  const int socket_ = socket(AF_INET, SOCK_STREAM, 0);
  if (socket_ < 0) return -1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  if (connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return socket_;
  close(socket_);
  return -1;
}

TEST(SilentConnections, AreBoundedAndLeaveThePortAlive) {
  RpcServerOptions options = SmallServer(absl::Seconds(5));
  options.max_connections = 50;
  FakeServer server(options);
  const auto early = server.NewStub();
  EXPECT_THAT(ListRuns(*early), IsOk());
  std::vector<int> sockets;
  for (int i = 0; i < 200; ++i) {
    if (const int socket = Connect(server.server().port()); socket >= 0) sockets.push_back(socket);
  }
  EXPECT_THAT(ListRuns(*early), IsOk());
  EXPECT_TRUE(Within(absl::Seconds(5), [&] {
    return MetricsOf(options).find("mechinterp_connections 50") != std::string::npos;
  }));
  for (const int socket : sockets) close(socket);
  EXPECT_TRUE(Within(absl::Seconds(5), [&] { return ListRuns(*server.NewStub(), absl::Seconds(2)).ok(); }));
}

// Out of descriptors: what comes then is closed, and the next one that there is room for is served.
TEST(SilentConnections, ThatTakeAllDescriptorsLeaveThePortAlive) {
  FakeServer server(SmallServer(absl::Seconds(5)));
  const auto early = server.NewStub();
  EXPECT_THAT(ListRuns(*early), IsOk());
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  int in_use = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) in_use += entry.exists();
  rlimit low = before;
  low.rlim_cur = static_cast<rlim_t>(in_use) + 40;
  setrlimit(RLIMIT_NOFILE, &low);
  std::vector<int> sockets;  // both ends are this process's: twenty connections take all
  for (int i = 0; i < 100; ++i) {
    if (const int socket = Connect(server.server().port()); socket >= 0) sockets.push_back(socket);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_THAT(ListRuns(*early), IsOk());
  for (const int socket : sockets) close(socket);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_TRUE(Within(absl::Seconds(10), [&] { return ListRuns(*server.NewStub(), absl::Seconds(2)).ok(); }));
}

// A client that was killed, or whose line was cut: its call ends, its place is free.
TEST(SlowClients, ThatLeaveFreeTheirPlaces) {
  FakeServer server(SmallServer(absl::Minutes(1)));
  const auto stub = server.NewStub();
  for (int round = 0; round < 10; ++round) {
    std::vector<std::unique_ptr<UnreadStream>> streams;
    for (int i = 0; i < 4; ++i) streams.push_back(std::make_unique<UnreadStream>(*stub));
    for (const auto& stream : streams) stream->context.TryCancel();
  }
  EXPECT_TRUE(Within(absl::Seconds(5), [&] { return server.service().streams_in_handlers == 0; }));
  server.service().must_end = true;
  EXPECT_EQ(DeleteRun(*stub, absl::Seconds(5)).error_message(), "told to end");
}

}  // namespace
}  // namespace mechinterp
