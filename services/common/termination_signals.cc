#include "services/common/termination_signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

// Ends the thread that waits; no one else sends it.
constexpr int kEndOfWatch = SIGUSR2;
// More would cost memory for each that is never used.
#ifdef __APPLE__
constexpr rlim_t kMostDescriptors = 10'240;  // OPEN_MAX: setrlimit takes no more
#else
constexpr rlim_t kMostDescriptors = 65'536;
#endif

sigset_t WatchedSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, kEndOfWatch);
  return set;
}

}  // namespace

TerminationSignals::TerminationSignals() {
  signal(SIGPIPE, SIG_IGN);
  const sigset_t set = WatchedSet();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { Watch(); });
}

TerminationSignals::~TerminationSignals() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  pthread_kill(thread_.native_handle(), kEndOfWatch);
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
  const sigset_t set = WatchedSet();
  while (true) {
    int number = 0;
    if (sigwait(&set, &number) != 0) continue;
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    if (number == kEndOfWatch) continue;
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
