#include "clients/lib/connection.h"

#include "absl/time/clock.h"
#include "clients/lib/model_client.h"
#include "gtest/gtest.h"
#include "tests/clients/fake_model_service.h"
#include "tests/clients/slow_link.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::FakeServer;
using testing::SilentPort;
using testing::SlowLink;

// One attempt, on which a link's first connection is made.
absl::Status GetModelOnceFrom(const std::string& address) {
  ModelClientOptions options;
  options.retry.max_attempts = 1;
  return ModelClient(v1::ModelService::NewStub(ConnectTo(address)), options).GetModel().status();
}

TEST(ConnectTo, ReachesAServerBehindASecondOfDelay) {
  FakeServer fake;
  const SlowLink link(fake.port, absl::Seconds(1));
  EXPECT_THAT(GetModelOnceFrom(link.address()), IsOk());
}

TEST(ConnectTo, TellsAtOnceThatNobodyListens) {
  const absl::Time begin = absl::Now();
  EXPECT_THAT(GetModelOnceFrom("127.0.0.1:1"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(1));
}

// A name that begins like a loopback address is another machine's.
TEST(MaySend, SendsATokenInTheClearToThisMachineAlone) {
  ConnectionCredentials credentials;
  credentials.token = "secret";
  for (const char* here : {"127.0.0.1:1", "127.1.2.3:1", "localhost:1", "[::1]:1"}) {
    EXPECT_THAT(MaySend(credentials, here), IsOk());
  }
  for (const char* elsewhere :
       {"127.0.0.1.example.com:1", "10.0.0.1:1", "localhost.example.com:1", "[::2]:1"}) {
    EXPECT_THAT(MaySend(credentials, elsewhere), StatusIs(absl::StatusCode::kInvalidArgument)) << elsewhere;
  }
  credentials.is_encrypted = true;
  EXPECT_THAT(MaySend(credentials, "10.0.0.1:1"), IsOk());
}

TEST(RespondsWithin, IsFalseForAServerThatSaysNothing) {
  const SilentPort silent;
  EXPECT_FALSE(RespondsWithin(*ConnectTo(silent.address()), absl::Milliseconds(50)));
}

TEST(RespondsWithin, IsTrueAsSoonAsItIsKnownWhetherThereIsAServer) {
  FakeServer fake;
  EXPECT_TRUE(RespondsWithin(*ConnectTo(fake.address()), absl::Hours(1)));
  EXPECT_TRUE(RespondsWithin(*ConnectTo("127.0.0.1:1"), absl::Hours(1)));
}

}  // namespace
}  // namespace mechinterp
