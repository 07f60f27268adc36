#include "services/rpc/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/listen_address.h"
#include "services/common/status_macros.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

constexpr int kBacklog = 512;
constexpr int kRetryMilliseconds = 200;   // between attempts to listen anew
constexpr int kCountMilliseconds = 5000;  // between counts of the connections that are open
constexpr absl::Duration kLogInterval = absl::Seconds(10);

void SetFlags(int descriptor, bool non_blocking) {
  fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  if (non_blocking) fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
}

int PortOf(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
  return ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
}

// The address of the other end, as the system has it; empty when the descriptor is no connected
// socket any longer.
std::string PeerOf(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  return std::string(reinterpret_cast<const char*>(&address), size);
}

// A listening socket, or -1 with errno set.
int ListenOn(const addrinfo& entry) {
  const int descriptor = socket(entry.ai_family, entry.ai_socktype, entry.ai_protocol);
  if (descriptor < 0) return -1;
  SetFlags(descriptor, /*non_blocking=*/true);
  const int yes = 1, no = 0;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (entry.ai_family == AF_INET6) setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
  if (bind(descriptor, entry.ai_addr, entry.ai_addrlen) == 0 && listen(descriptor, kBacklog) == 0) {
    return descriptor;
  }
  const int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

// Whether accepting failed since something is used up, and may work again later.
bool IsShortage(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

bool IsPassing(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ECONNABORTED ||
         error == EPROTO;
}

}  // namespace

Listener::Listener(const ListenerOptions& options, std::function<void(int, int)> on_connection,
                   std::function<void(int, bool)> on_count)
    : options_(options), on_connection_(std::move(on_connection)), on_count_(std::move(on_count)) {}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Start(const ListenerOptions& options,
                                                          std::function<void(int, int)> on_connection,
                                                          std::function<void(int, bool)> on_count) {
  ABSTRACT_ASSIGN_OR_RETURN(const ListenAddress address, ParseListenAddress(options.address));
  auto listener =
      std::unique_ptr<Listener>(new Listener(options, std::move(on_connection), std::move(on_count)));
  ABSTRACT_RETURN_IF_ERROR(listener->Open(address.port));
  if (pipe(listener->stop_pipe_) != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options.address, ": ", std::strerror(errno)));
  }
  for (const int end : listener->stop_pipe_) SetFlags(end, /*non_blocking=*/true);
  listener->spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
  listener->thread_ = std::thread([raw = listener.get()] { raw->Loop(); });
  return listener;
}

Listener::~Listener() {
  if (thread_.joinable()) {
    (void)!write(stop_pipe_[1], "x", 1);
    thread_.join();
  }
  CloseSockets();
  for (const int descriptor : {stop_pipe_[0], stop_pipe_[1], spare_}) {
    if (descriptor >= 0) close(descriptor);
  }
}

void Listener::CloseSockets() {
  for (const int socket : sockets_) close(socket);
  sockets_.clear();
}

// On all addresses that the name stands for: "localhost" is two where there is IPv6.
absl::Status Listener::Open(int port) {
  ABSTRACT_ASSIGN_OR_RETURN(const ListenAddress address, ParseListenAddress(options_.address));
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(address.host.c_str(), std::to_string(port).c_str(), &hints, &found);
  std::string problem = error == 0 ? "" : gai_strerror(error);
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    addrinfo wanted = *entry;
    // The second address gets the port that the system chose for the first.
    if (port_ != 0) {
      const auto network_port = htons(static_cast<uint16_t>(port_));
      if (entry->ai_family == AF_INET)
        reinterpret_cast<sockaddr_in*>(wanted.ai_addr)->sin_port = network_port;
      if (entry->ai_family == AF_INET6)
        reinterpret_cast<sockaddr_in6*>(wanted.ai_addr)->sin6_port = network_port;
    }
    const int socket = ListenOn(wanted);
    if (socket >= 0) {
      sockets_.push_back(socket);
      if (port_ == 0) port_ = PortOf(socket);
    } else if (problem.empty() || errno == EADDRINUSE) {
      problem = std::strerror(errno);
      if (errno != EADDRINUSE) continue;
      CloseSockets();  // half of a taken name is not served
      break;
    }
  }
  if (found != nullptr) freeaddrinfo(found);
  if (!sockets_.empty()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot listen on ", options_.address, ": ", problem));
}

void Listener::Loop() {
  while (true) {
    std::vector<pollfd> watched = {{stop_pipe_[0], POLLIN, 0}};
    for (const int socket : sockets_) watched.push_back({socket, POLLIN, 0});
    const int patience = sockets_.empty() ? kRetryMilliseconds : handed_on_.empty() ? -1 : kCountMilliseconds;
    const int ready = poll(watched.data(), watched.size(), patience);
    if (watched[0].revents != 0) return;
    if (ready == 0 && on_count_) on_count_(CountOpen(), false);
    if (ready < 0 && errno != EINTR) usleep(kRetryMilliseconds * 1000);
    bool is_broken = sockets_.empty();
    for (size_t i = 1; i < watched.size(); ++i) {
      if ((watched[i].revents & POLLIN) != 0) Accept(watched[i].fd);
      is_broken = is_broken || (watched[i].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
    }
    if (!is_broken) continue;
    CloseSockets();
    if (const absl::Status status = Open(port_); status.ok())
      spdlog::warn("listening anew on port {}", port_);
  }
}

void Listener::Accept(int listener) {
  const int socket = accept(listener, nullptr, nullptr);
  if (socket < 0) {
    const int error = errno;
    if (IsShortage(error)) {
      MakeRoom(listener);
    } else if (!IsPassing(error)) {
      spdlog::warn("cannot accept connections: {}", std::strerror(error));
      CloseSockets();  // the loop listens anew
    }
    return;
  }
  if (static_cast<int>(handed_on_.size()) >= options_.max_connections &&
      CountOpen() >= options_.max_connections) {
    return Refuse(socket);
  }
  SetFlags(socket, /*non_blocking=*/true);
  const int yes = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  handed_on_[socket] = PeerOf(socket);
  if (on_count_) on_count_(CountOpen(), false);
  on_connection_(listener, socket);
}

void Listener::Refuse(int socket) {
  close(socket);
  if (on_count_) on_count_(static_cast<int>(handed_on_.size()), true);
  ++refused_;
  if (absl::Now() < last_log_ + kLogInterval) return;
  spdlog::warn("connections are refused, {} so far: {} are open, {} may be", refused_, handed_on_.size(),
               options_.max_connections);
  last_log_ = absl::Now();
}

// No descriptor is left: the waiting connection is closed by means of the spare one, so that it
// does not wait for ever, nor wakes the loop for ever.
void Listener::MakeRoom(int listener) {
  if (spare_ >= 0) close(spare_);
  const int socket = accept(listener, nullptr, nullptr);
  if (socket >= 0) Refuse(socket);
  spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (spare_ < 0 || socket < 0) usleep(kRetryMilliseconds * 1000 / 10);
}

// What gRPC has closed is no socket any longer, or one of somebody else's with another peer.
int Listener::CountOpen() {
  for (auto it = handed_on_.begin(); it != handed_on_.end();) {
    it = PeerOf(it->first) == it->second && !it->second.empty() ? std::next(it) : handed_on_.erase(it);
  }
  return static_cast<int>(handed_on_.size());
}

}  // namespace mechinterp
