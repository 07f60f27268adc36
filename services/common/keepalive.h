#ifndef SERVICES_COMMON_KEEPALIVE_H_
#define SERVICES_COMMON_KEEPALIVE_H_

#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace mechinterp {

// How connections are probed, for both ends in one place: a server closes connections
// that ping it more often than it allows ("Too many pings"), with the calls on them.

// A client's silent connection is pinged so often while calls are in progress, and
// given up when no answer comes for so long.
inline constexpr absl::Duration kKeepaliveInterval = absl::Seconds(30);
inline constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(20);
// What servers allow. gRPC's clients ping once a second at most, whatever they are told.
inline constexpr absl::Duration kShortestPingInterval = absl::Milliseconds(500);

inline void PingServer(grpc::ChannelArguments& arguments, absl::Duration interval = kKeepaliveInterval) {
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(absl::ToInt64Milliseconds(interval)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(kKeepaliveTimeout)));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // A run may be silent for minutes.
}

inline void AllowPings(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(kShortestPingInterval)));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
}

}  // namespace mechinterp

#endif  // SERVICES_COMMON_KEEPALIVE_H_
