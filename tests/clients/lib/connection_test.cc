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
