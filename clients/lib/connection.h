#ifndef CLIENTS_LIB_CONNECTION_H_
#define CLIENTS_LIB_CONNECTION_H_

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace mechinterp {

// A plaintext channel to "HOST:PORT" that soon notices a server that is back:
// gRPC's own pauses between connections grow to minutes, in which every call
// fails at once. An attempt to connect may take ten seconds, so links with
// seconds of delay work. Long calls are kept alive (services/common/keepalive.h).
// Loopback addresses are reached past any HTTP proxy. Connects with the first call.
std::shared_ptr<grpc::Channel> ConnectTo(const std::string& address);

// How soon a person wants to be told that a server does not answer: within a second.
inline constexpr absl::Duration kSoon = absl::Milliseconds(800);

// Connects, and waits until the server answers or is known to be unreachable, but for
// `patience` at most. False when nothing at all came in that time. Thread-safe.
bool RespondsWithin(grpc::Channel& channel, absl::Duration patience);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_CONNECTION_H_
