#include "services/common/termination_signals.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

// More would cost memory for each that is never used.
#ifdef __APPLE__
constexpr rlim_t kMostDescriptors = 10'240;  // OPEN_MAX: setrlimit takes no more
#else
constexpr rlim_t kMostDescriptors = 65'536;
#endif

// Signals come to whichever thread does not block them, those of libraries that begin before main
// among them: a handler passes each on through a pipe. 0 ends the thread that reads it.
int signal_pipe[2] = {-1, -1};

void PassOn(int number) {
  const int error = errno;  // of the code that was interrupted
  const auto byte = static_cast<unsigned char>(number);
  (void)!write(signal_pipe[1], &byte, 1);
  errno = error;
}

}  // namespace

TerminationSignals::TerminationSignals() {
  signal(SIGPIPE, SIG_IGN);
  if (pipe(signal_pipe) != 0) std::abort();
  for (const int end : signal_pipe) fcntl(end, F_SETFD, FD_CLOEXEC);
  struct sigaction action {};
  action.sa_handler = PassOn;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  thread_ = std::thread([this] { Watch(); });
}

TerminationSignals::~TerminationSignals() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  PassOn(0);
  thread_.join();
}

void TerminationSignals::HoldBack() {
  const std::lock_guard lock(mutex_);
  holds_back_ = true;
}

int TerminationSignals::Wait() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [this] { return number_ != 0; });
  return number_;
}

void TerminationSignals::Watch() {
  while (true) {
    unsigned char byte = 0;
    if (read(signal_pipe[0], &byte, 1) != 1) continue;
    const int number = byte;
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    if (!holds_back_ || number_ != 0) {
      spdlog::info("signal {}: ending at once", number);
      // Being stopped before there was anything to lose is no failure.
      std::_Exit(holds_back_ ? 128 + number : 0);
    }
    number_ = number;
    arrived_.notify_all();
  }
}

void EndProcess(int exit_code) {
  spdlog::shutdown();
  std::fflush(nullptr);
  std::_Exit(exit_code);
}

int RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
  const rlim_t wanted = std::max(limit.rlim_cur, std::min(limit.rlim_max, kMostDescriptors));
  if (wanted != limit.rlim_cur) {
    rlimit raised = limit;
    raised.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, kMostDescriptors));
}

}  // namespace mechinterp
