#include "clients/lib/connection.h"

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "services/common/keepalive.h"

namespace mechinterp {

std::shared_ptr<grpc::Channel> ConnectTo(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // Whatever its name says: how long an attempt to connect may take.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10'000);
  PingServer(arguments);
  const bool is_loopback = absl::StartsWith(address, "127.") || absl::StartsWith(address, "localhost") ||
                           absl::StartsWith(address, "[::1]");
  if (is_loopback) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

bool RespondsWithin(grpc::Channel& channel, absl::Duration patience) {
  const auto deadline = absl::ToChronoTime(absl::Now() + patience);
  while (true) {
    const grpc_connectivity_state state = channel.GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_TRANSIENT_FAILURE) return true;
    if (!channel.WaitForStateChange(state, deadline)) return false;
  }
}

}  // namespace mechinterp
