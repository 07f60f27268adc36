#include "clients/lib/channel_wait.h"

#include <memory>
#include <thread>

#include "absl/time/clock.h"
#include "clients/lib/connection.h"
#include "clients/lib/model_client.h"
#include "gtest/gtest.h"
#include "tests/clients/fake_model_service.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::FakeModelService;
using testing::FakeServer;

// A server's port that nobody listens on any more.
int FreePort() {
  const FakeServer fake;
  return fake.port;
}

std::unique_ptr<grpc::Server> ServeOn(int port, FakeModelService& service) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  return builder.BuildAndStart();
}

// With the retries that the tool has.
TEST(WaitOn, FindsAServerSoonAfterItIsBack) {
  for (const double seconds : {0.3, 1.0, 2.0, 4.0, 6.0}) {
    const absl::Duration away = absl::Seconds(seconds);
    const int port = FreePort();
    const auto channel = ConnectTo("127.0.0.1:" + std::to_string(port));
    ModelClientOptions options;
    options.sleep = WaitOn(channel);
    ModelClient client(v1::ModelService::NewStub(channel), options);
    FakeModelService service;
    std::unique_ptr<grpc::Server> server;
    const absl::Time begin = absl::Now();
    std::thread starter([&] {
      absl::SleepFor(away);
      server = ServeOn(port, service);
    });
    EXPECT_THAT(client.GetModel(), IsOk()) << away;
    const absl::Duration took = absl::Now() - begin;
    starter.join();
    // A channel makes a new attempt to connect every 1.2 s at least.
    EXPECT_LT(took, away + absl::Seconds(1.7)) << away;
    server->Shutdown();
  }
}

TEST(WaitOn, WaitsAsLongAsItIsToldForAServerThatIsThere) {
  FakeServer fake;
  const auto channel = ConnectTo(fake.address());
  ASSERT_TRUE(channel->WaitForConnected(absl::ToChronoTime(absl::Now() + absl::Seconds(10))));
  const absl::Time begin = absl::Now();
  WaitOn(channel)(absl::Milliseconds(200));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(200));
}

}  // namespace
}  // namespace mechinterp
