#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/listen_address.h"
#include "services/common/metrics_server.h"
#include "services/common/termination_signals.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(MetricsServer, NamesTheAddressWhenThePortIsTaken) {
  const auto registry = std::make_shared<prometheus::Registry>();
  const auto metrics = StartMetricsServer("127.0.0.1:0", registry);
  ASSERT_THAT(metrics, IsOk());
  const std::string taken = absl::StrCat("127.0.0.1:", (*metrics)->port());
  EXPECT_THAT(StartMetricsServer(taken, registry),
              StatusIs(absl::StatusCode::kUnavailable, AllOf(HasSubstr(taken), HasSubstr("in use"))));
}

TEST(MetricsServer, RejectsWhatIsNoAddress) {
  for (const std::string text : {"", "50051", "localhost:", ":50051", "localhost:70000", "::1:50051"}) {
    EXPECT_THAT(StartMetricsServer(text, std::make_shared<prometheus::Registry>()),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(absl::StrCat("\"", text, "\""))));
  }
  EXPECT_EQ(ParseListenAddress("[::1]:80")->host, "::1");
}

// The exit status of a process that does this.
int StatusOfProcess(void (*run)()) {
  const pid_t child = fork();
  if (child == 0) {
    run();
    _exit(99);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

TEST(TerminationSignals, ReturnsTheSignal) {
  EXPECT_EQ(StatusOfProcess([] {
              TerminationSignals signals;
              signals.HoldBack();
              kill(getpid(), SIGTERM);
              _exit(signals.Wait());
            }),
            SIGTERM);
}

TEST(TerminationSignals, EndsAtOnceWhatIsNotReady) {
  EXPECT_EQ(StatusOfProcess([] {
              TerminationSignals signals;
              kill(getpid(), SIGTERM);
              sleep(20);
            }),
            0);
}

TEST(TerminationSignals, EndsAtTheSecond) {
  EXPECT_EQ(StatusOfProcess([] {
              TerminationSignals signals;
              signals.HoldBack();
              kill(getpid(), SIGTERM);
              signals.Wait();
              kill(getpid(), SIGINT);
              sleep(20);
            }),
            128 + SIGINT);
}

// A log whose reader has gone.
TEST(TerminationSignals, OutlivesABrokenPipe) {
  EXPECT_EQ(StatusOfProcess([] {
              TerminationSignals signals;
              int ends[2];
              if (pipe(ends) != 0) _exit(1);
              close(ends[0]);
              const bool failed = write(ends[1], "x", 1) < 0;
              _exit(failed ? 7 : 1);
            }),
            7);
}

}  // namespace
}  // namespace mechinterp
