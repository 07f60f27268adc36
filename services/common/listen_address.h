#ifndef SERVICES_COMMON_LISTEN_ADDRESS_H_
#define SERVICES_COMMON_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mechinterp {

// "127.0.0.1:50051", "localhost:0", "[::1]:8080".
struct ListenAddress {
  std::string host;  // Without brackets.
  int port = 0;
};

// Errors: InvalidArgument, naming the text.
absl::StatusOr<ListenAddress> ParseListenAddress(const std::string& text);

// A socket that takes connections; the caller's to close.
struct ListeningSocket {
  int descriptor;  // does not block, and is not handed on to other programs
  int port;        // that was asked for, or taken
  bool is_loopback;
};

// On the first address of the name that this machine has. Errors: InvalidArgument for text that is
// no address; Unavailable, "cannot listen on 127.0.0.1:50051: Address already in use".
absl::StatusOr<ListeningSocket> Listen(const std::string& text);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_LISTEN_ADDRESS_H_
