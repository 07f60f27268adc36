#include "services/rpc/listener.h"

#include <fcntl.h>
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

constexpr int kRetryMilliseconds = 200;   // between attempts to listen anew
constexpr int kCountMilliseconds = 5000;  // between counts of the connections that are open, ...
constexpr absl::Duration kCountInterval = absl::Seconds(1);  // ... and while new ones come
constexpr absl::Duration kLogInterval = absl::Seconds(10);

void SetFlags(int descriptor) {
  fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
}

// The address of the other end, as the system has it; empty when the descriptor is no connected
// socket any longer.
std::string PeerOf(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  return std::string(reinterpret_cast<const char*>(&address), size);
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
  auto listener =
      std::unique_ptr<Listener>(new Listener(options, std::move(on_connection), std::move(on_count)));
  ABSTRACT_RETURN_IF_ERROR(listener->Open());
  if (pipe(listener->stop_pipe_) != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options.address, ": ", std::strerror(errno)));
  }
  for (const int end : listener->stop_pipe_) SetFlags(end);
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

absl::Status Listener::Open() {
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<ListeningSocket> opened, ListenOnAll(options_.address, port_));
  for (const ListeningSocket& socket : opened) sockets_.push_back(socket.descriptor);
  port_ = opened.front().port;
  return absl::OkStatus();
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
    if (const absl::Status status = Open(); status.ok()) spdlog::warn("listening anew on port {}", port_);
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
  SetFlags(socket);
  const int yes = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
#ifdef TCP_USER_TIMEOUT
  const auto stall = static_cast<unsigned>(absl::ToInt64Milliseconds(options_.stall));
  setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &stall, sizeof(stall));
#endif
  handed_on_[socket] = PeerOf(socket);
  // Asking of each whether it is open takes time where there are thousands.
  if (absl::Now() > last_count_ + kCountInterval) CountOpen();
  if (on_count_) on_count_(static_cast<int>(handed_on_.size()), false);
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
  last_count_ = absl::Now();
  for (auto it = handed_on_.begin(); it != handed_on_.end();) {
    it = PeerOf(it->first) == it->second && !it->second.empty() ? std::next(it) : handed_on_.erase(it);
  }
  return static_cast<int>(handed_on_.size());
}

}  // namespace mechinterp
