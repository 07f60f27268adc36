#ifndef SERVICES_COMMON_TERMINATION_SIGNALS_H_
#define SERVICES_COMMON_TERMINATION_SIGNALS_H_

#include <condition_variable>
#include <mutex>
#include <thread>

namespace mechinterp {

// Takes SIGINT and SIGTERM in a thread of its own; call first thing in main, once. A signal ends the program
// at once until HoldBack is called: while a model is loaded there is nothing to lose. From then on Wait
// returns when one arrives. A second one always ends the program. SIGPIPE is ignored: a log whose reader has
// gone, or a socket, must not end a server.
class TerminationSignals {
 public:
  TerminationSignals();
  ~TerminationSignals();
  TerminationSignals(const TerminationSignals&) = delete;
  TerminationSignals& operator=(const TerminationSignals&) = delete;

  void HoldBack();
  // The signal's number.
  int Wait();

 private:
  void Watch();

  std::mutex mutex_;
  std::condition_variable arrived_;
  bool holds_back_ = false;
  int number_ = 0;
  bool ended_ = false;
  std::thread thread_;
};

// Ends the process now, its output written: gRPC's own threads, which nothing waits for, may
// otherwise keep it for many seconds.
[[noreturn]] void EndProcess(int exit_code);

// Raises the number of files and connections that the process may have open to what the system
// lets it. Returns that number.
int RaiseDescriptorLimit();

}  // namespace mechinterp

#endif  // SERVICES_COMMON_TERMINATION_SIGNALS_H_
