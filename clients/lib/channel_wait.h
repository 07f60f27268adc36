#ifndef CLIENTS_LIB_CHANNEL_WAIT_H_
#define CLIENTS_LIB_CHANNEL_WAIT_H_

#include <functional>
#include <memory>

#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace mechinterp {

// How a client of a channel waits before it repeats a call. Who only sleeps does not connect: a channel
// that nobody waits on gets on by a poller that comes every few seconds. This drives it, and returns
// early when a lost connection is back. Thread-safe.
std::function<void(absl::Duration)> WaitOn(std::shared_ptr<grpc::Channel> channel);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_CHANNEL_WAIT_H_
