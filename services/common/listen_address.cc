#include "services/common/listen_address.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// The descriptor; -1, with errno, where it cannot be.
int Bind(const addrinfo& entry) {
  const int descriptor = socket(entry.ai_family, entry.ai_socktype, entry.ai_protocol);
  if (descriptor < 0) return -1;
  fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  fcntl(descriptor, F_SETFL, O_NONBLOCK);
  // As servers do, so that connections lingering in TIME_WAIT are not blamed.
  const int yes = 1, no = 0;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (entry.ai_family == AF_INET6) setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
  if (bind(descriptor, entry.ai_addr, entry.ai_addrlen) == 0 && listen(descriptor, SOMAXCONN) == 0) {
    return descriptor;
  }
  const int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

struct Addresses {
  explicit Addresses(const ListenAddress& address) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    error = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &first);
  }
  ~Addresses() {
    if (error == 0) freeaddrinfo(first);
  }

  addrinfo* first = nullptr;
  int error = 0;
};

void SetPort(int port, const addrinfo& entry) {
  const in_port_t network_port = htons(static_cast<uint16_t>(port));
  if (entry.ai_family == AF_INET) reinterpret_cast<sockaddr_in*>(entry.ai_addr)->sin_port = network_port;
  if (entry.ai_family == AF_INET6) reinterpret_cast<sockaddr_in6*>(entry.ai_addr)->sin6_port = network_port;
}

bool IsLoopbackAddress(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET6) {
    const auto& six = reinterpret_cast<const sockaddr_in6&>(address);
    return IN6_IS_ADDR_LOOPBACK(&six.sin6_addr);
  }
  const auto& four = reinterpret_cast<const sockaddr_in&>(address);
  return (ntohl(four.sin_addr.s_addr) >> 24) == 127;
}

ListeningSocket Describe(int descriptor) {
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  getsockname(descriptor, reinterpret_cast<sockaddr*>(&bound), &length);
  const in_port_t port = bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                                     : reinterpret_cast<sockaddr_in&>(bound).sin_port;
  return {descriptor, ntohs(port), IsLoopbackAddress(bound)};
}

}  // namespace

absl::StatusOr<ListenAddress> ParseListenAddress(const std::string& text) {
  const absl::Status error = absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no address to listen on; it must be HOST:PORT, as 127.0.0.1:50051"));
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return error;
  std::string host = text.substr(0, colon);
  const std::string port_text = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return error;  // IPv6 needs its brackets, or the port is guessed.
  }
  int port = 0;
  // SimpleAtoi also takes signs and blanks.
  const bool only_digits = port_text.find_first_not_of("0123456789") == std::string::npos;
  if (host.empty() || !only_digits || !absl::SimpleAtoi(port_text, &port) || port > 65535) return error;
  return ListenAddress{host, port};
}

absl::StatusOr<std::vector<ListeningSocket>> ListenOnAll(const std::string& text, int port, int most) {
  ABSTRACT_ASSIGN_OR_RETURN(ListenAddress address, ParseListenAddress(text));
  if (port != 0) address.port = port;
  const Addresses found(address);
  std::string problem = gai_strerror(found.error);
  std::vector<ListeningSocket> sockets;
  for (addrinfo* entry = found.first; entry != nullptr && static_cast<int>(sockets.size()) < most;
       entry = entry->ai_next) {
    // The second address gets the port that the system chose for the first.
    if (!sockets.empty()) SetPort(sockets.front().port, *entry);
    if (const int descriptor = Bind(*entry); descriptor >= 0) {
      sockets.push_back(Describe(descriptor));
      continue;
    }
    problem = std::strerror(errno);
    if (errno != EADDRINUSE) continue;  // such as an address that this machine does not have
    for (const ListeningSocket& socket : sockets) close(socket.descriptor);
    sockets.clear();  // half of a taken name is not served
    break;
  }
  if (!sockets.empty()) return sockets;
  return absl::UnavailableError(absl::StrCat("cannot listen on ", text, ": ", problem));
}

absl::StatusOr<ListeningSocket> Listen(const std::string& text) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<ListeningSocket> sockets,
                            ListenOnAll(text, /*port=*/0, /*most=*/1));
  return sockets.front();
}

}  // namespace mechinterp
