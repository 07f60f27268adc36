#include "clients/lib/channel_wait.h"

#include <utility>

#include "absl/time/clock.h"

namespace mechinterp {

std::function<void(absl::Duration)> WaitOn(std::shared_ptr<grpc::Channel> channel) {
  return [channel = std::move(channel)](absl::Duration wait) {
    const absl::Time deadline = absl::Now() + wait;
    bool was_lost = false;
    while (true) {
      const grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
      if (state == GRPC_CHANNEL_READY && was_lost) return;
      was_lost = state != GRPC_CHANNEL_READY;
      if (!channel->WaitForStateChange(state, absl::ToChronoTime(deadline))) return;
    }
  };
}

}  // namespace mechinterp
