#ifndef CLIENTS_LIB_CONNECTION_H_
#define CLIENTS_LIB_CONNECTION_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "services/common/tls.h"

namespace mechinterp {

// How servers are told who calls, and checked for who they are.
struct ConnectionOptions {
  ClientTlsOptions tls;
  std::string token_file;  // holds a token as `abstract token create` prints it; empty: none
  bool insecure = false;   // the token may travel in the clear to other machines
};

// The same, read. What is in it is secret.
struct ConnectionCredentials {
  std::shared_ptr<grpc::ChannelCredentials> channel;  // null: none
  std::string token;
  bool is_encrypted = false;
  bool insecure = false;
};

// Errors: InvalidArgument, naming the option whose file is missing or is none.
absl::StatusOr<ConnectionCredentials> ReadCredentials(const ConnectionOptions& options);
// InvalidArgument where the token would travel in the clear to another machine.
absl::Status MaySend(const ConnectionCredentials& credentials, const std::string& address);

// A channel to "HOST:PORT" that soon notices a server that is back:
// gRPC's own pauses between connections grow to minutes, in which every call
// fails at once. An attempt to connect may take ten seconds, so links with
// seconds of delay work. Long calls are kept alive (services/common/keepalive.h).
// Loopback addresses are reached past any HTTP proxy. Calls carry a W3C traceparent: one for the process, or
// $TRACEPARENT. Connects with the first call.
std::shared_ptr<grpc::Channel> ConnectTo(const std::string& address,
                                         const ConnectionCredentials& credentials = {});

// How soon a person wants to be told that a server does not answer: within a second.
inline constexpr absl::Duration kSoon = absl::Milliseconds(800);

// Connects, and waits until the server answers or is known to be unreachable, but for
// `patience` at most. False when nothing at all came in that time. Thread-safe.
bool RespondsWithin(grpc::Channel& channel, absl::Duration patience);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_CONNECTION_H_
