#include "tests/clients/slow_link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "absl/time/clock.h"

namespace mechinterp::testing {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// A listening socket on any free port, which is stored in `port`.
int Listen(int& port) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 16) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    close(listener);
    return -1;
  }
  port = ntohs(address.sin_port);
  return listener;
}

}  // namespace

SlowLink::SlowLink(int target_port, absl::Duration delay)
    : target_port_(target_port), delay_(delay), listener_(Listen(port_)), acceptor_([this] { Accept(); }) {}

SlowLink::~SlowLink() {
  ended_ = true;
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  for (const int socket : sockets_) shutdown(socket, SHUT_RDWR);
  for (std::thread& thread : threads_) thread.join();
  for (const int socket : sockets_) close(socket);
  close(listener_);
}

void SlowLink::Accept() {
  while (!ended_) {
    const int client = accept(listener_, nullptr, nullptr);
    if (client < 0) return;
    const int server = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = Loopback(target_port_);
    const std::lock_guard<std::mutex> lock(mutex_);
    sockets_.insert(sockets_.end(), {client, server});
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) continue;
    threads_.emplace_back([this, client, server] { Forward(client, server); });
    threads_.emplace_back([this, client, server] { Forward(server, client); });
  }
}

void SlowLink::Forward(int from, int to) {
  std::array<char, 1 << 16> buffer;
  while (true) {
    const ssize_t received = recv(from, buffer.data(), buffer.size(), 0);
    if (received <= 0) break;
    absl::SleepFor(delay_);
    for (ssize_t sent = 0; sent < received;) {
      const ssize_t count =
          send(to, buffer.data() + sent, static_cast<size_t>(received - sent), MSG_NOSIGNAL);
      if (count <= 0) return;
      sent += count;
    }
  }
  shutdown(to, SHUT_WR);
}

SilentPort::SilentPort() : listener_(Listen(port_)) {}

SilentPort::~SilentPort() { close(listener_); }

}  // namespace mechinterp::testing
