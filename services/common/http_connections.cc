#include "services/common/http_connections.h"

#include <sys/socket.h>

#include <algorithm>
#include <chrono>

#include "absl/time/clock.h"

namespace mechinterp {

HttpConnections::HttpConnections(const ConnectionLimits& limits)
    : limits_(limits), thread_([this] { Watch(); }) {}

HttpConnections::~HttpConnections() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

uint64_t HttpConnections::Opened(int descriptor) {
  const std::lock_guard lock(mutex_);
  if (connections_.size() >= limits_.most) {
    shutdown(connections_.begin()->second.descriptor, SHUT_RDWR);
    connections_.erase(connections_.begin());
  }
  if (connections_.empty()) changed_.notify_one();
  connections_.emplace(++last_id_, Connection{descriptor, absl::Now()});
  return last_id_;
}

void HttpConnections::Answering(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = connections_.find(id);
  if (found != connections_.end()) found->second.answering = true;
}

void HttpConnections::Closed(uint64_t id) {
  const std::lock_guard lock(mutex_);
  connections_.erase(id);
}

void HttpConnections::EndLate(absl::Time now) {
  for (auto entry = connections_.begin(); entry != connections_.end();) {
    const Connection& connection = entry->second;
    if (now - connection.begin < (connection.answering ? limits_.whole : limits_.request)) {
      ++entry;
      continue;
    }
    shutdown(connection.descriptor, SHUT_RDWR);
    entry = connections_.erase(entry);
  }
}

void HttpConnections::Watch() {
  const auto interval = absl::ToChronoMilliseconds(std::max(limits_.request / 10, absl::Milliseconds(10)));
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (connections_.empty()) {
      changed_.wait(lock);
    } else {
      changed_.wait_for(lock, interval);
    }
    EndLate(absl::Now());
  }
}

}  // namespace mechinterp
