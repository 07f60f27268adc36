#ifndef SERVICES_COMMON_LISTEN_ADDRESS_H_
#define SERVICES_COMMON_LISTEN_ADDRESS_H_

#include <string>
#include <vector>

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

// On all addresses that the name stands for and this machine has, `most` of them at most, at one
// port: "localhost" is two where there is IPv6. `port` instead of the text's, unless it is 0.
// Errors: InvalidArgument for text that is no address; Unavailable, "cannot listen on
// 127.0.0.1:50051: Address already in use".
absl::StatusOr<std::vector<ListeningSocket>> ListenOnAll(const std::string& text, int port = 0,
                                                         int most = 16);
// On the first of them.
absl::StatusOr<ListeningSocket> Listen(const std::string& text);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_LISTEN_ADDRESS_H_
