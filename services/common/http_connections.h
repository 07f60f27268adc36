#ifndef SERVICES_COMMON_HTTP_CONNECTIONS_H_
#define SERVICES_COMMON_HTTP_CONNECTIONS_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>

#include "absl/time/time.h"

namespace mechinterp {

struct ConnectionLimits {
  size_t most = 480;  // open at once; beyond them the oldest is ended
  absl::Duration request = absl::Seconds(20);
  absl::Duration whole = absl::Minutes(10);
};

// Ends connections that are open for too long by shutting their sockets, so that whoever reads them finds
// their end. Thread-safe.
class HttpConnections {
 public:
  explicit HttpConnections(const ConnectionLimits& limits);
  ~HttpConnections();

  // The descriptor must stay open until Closed.
  uint64_t Opened(int descriptor);
  // The request was read.
  void Answering(uint64_t id);
  void Closed(uint64_t id);

 private:
  struct Connection {
    int descriptor;
    absl::Time begin;
    bool answering = false;
  };

  void Watch();
  // With the lock held.
  void EndLate(absl::Time now);

  const ConnectionLimits limits_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, Connection> connections_;  // the oldest first; without those that were ended
  uint64_t last_id_ = 0;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace mechinterp

#endif  // SERVICES_COMMON_HTTP_CONNECTIONS_H_
