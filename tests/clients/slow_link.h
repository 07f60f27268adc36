#ifndef TESTS_CLIENTS_SLOW_LINK_H_
#define TESTS_CLIENTS_SLOW_LINK_H_

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"

namespace mechinterp::testing {

// A TCP proxy in front of a local port that holds back what either side sends, as a long
// line does. Bytes are delayed by `delay` at least, never lost or reordered.
class SlowLink {
 public:
  SlowLink(int target_port, absl::Duration delay);
  // Ends all connections.
  ~SlowLink();
  SlowLink(const SlowLink&) = delete;
  SlowLink& operator=(const SlowLink&) = delete;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  void Accept();
  void Forward(int from, int to);

  const int target_port_;
  const absl::Duration delay_;
  int port_ = 0;  // before the listener, which stores it
  int listener_;
  std::atomic<bool> ended_ = false;
  std::mutex mutex_;
  std::vector<int> sockets_;          // guarded by mutex_
  std::vector<std::thread> threads_;  // guarded by mutex_
  std::thread acceptor_;
};

// A local port that takes connections and never says anything.
class SilentPort {
 public:
  SilentPort();
  ~SilentPort();
  SilentPort(const SilentPort&) = delete;
  SilentPort& operator=(const SilentPort&) = delete;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  int port_ = 0;  // before the listener, which stores it
  int listener_;
};

}  // namespace mechinterp::testing

#endif  // TESTS_CLIENTS_SLOW_LINK_H_
