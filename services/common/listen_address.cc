#include "services/common/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// What the system says when `address` is bound; empty when it agrees.
std::string BindProblem(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (error != 0) return gai_strerror(error);

  std::string problem;
  for (const addrinfo* entry = found; entry != nullptr && problem.empty(); entry = entry->ai_next) {
    const int descriptor = socket(entry->ai_family, entry->ai_socktype, entry->ai_protocol);
    if (descriptor < 0) {
      problem = std::strerror(errno);
      break;
    }
    // As servers do, so that connections lingering in TIME_WAIT are not blamed.
    const int yes = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(descriptor, entry->ai_addr, entry->ai_addrlen) != 0 || listen(descriptor, 1) != 0) {
      problem = std::strerror(errno);
    }
    close(descriptor);
  }
  freeaddrinfo(found);
  return problem;
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

absl::Status ListenFailure(const std::string& text) {
  ABSTRACT_ASSIGN_OR_RETURN(const ListenAddress address, ParseListenAddress(text));
  const std::string problem = BindProblem(address);
  return absl::UnavailableError(absl::StrCat("cannot listen on ", text, ": ",
                                             problem.empty() ? "the server could not start" : problem));
}

}  // namespace mechinterp
