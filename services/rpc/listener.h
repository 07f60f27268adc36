#ifndef SERVICES_RPC_LISTENER_H_
#define SERVICES_RPC_LISTENER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace mechinterp {

struct ListenerOptions {
  std::string address;         // "127.0.0.1:50051"; port 0 lets the system choose
  int max_connections = 1000;  // open at once; more are closed as they come
  // How long what was sent may find no room at the other end, or no answer, until the system
  // cuts the connection; 0: as long as the system likes. Linux only: elsewhere gRPC's pings find
  // such connections.
  absl::Duration stall = absl::ZeroDuration();
};

// Listens on an address and hands connections on, in a thread of its own. gRPC's own listener
// stops for good when the process runs out of file descriptors; this one keeps one in reserve,
// closes what it cannot have, listens anew if its socket fails, and bounds how many there are.
class Listener {
 public:
  // `on_connection` gets a non-blocking socket, which is its own from then on. `on_count` is told
  // of the number of connections and whether one was refused, whenever that changes. Both from
  // the listener's thread. Errors: InvalidArgument (address), Unavailable (naming it and why).
  static absl::StatusOr<std::unique_ptr<Listener>> Start(
      const ListenerOptions& options, std::function<void(int listener, int socket)> on_connection,
      std::function<void(int open, bool refused)> on_count = nullptr);
  // Accepts nothing any more; what was handed on stays open.
  ~Listener();

  int port() const { return port_; }

 private:
  Listener(const ListenerOptions& options, std::function<void(int, int)> on_connection,
           std::function<void(int, bool)> on_count);

  absl::Status Open();  // at the port that it had, if it had one
  void CloseSockets();
  void Loop();
  void Accept(int listener);
  void Refuse(int socket);
  void MakeRoom(int listener);
  int CountOpen();

  const ListenerOptions options_;
  const std::function<void(int, int)> on_connection_;
  const std::function<void(int, bool)> on_count_;
  std::vector<int> sockets_;  // one for each address that the name stands for
  int port_ = 0;
  int stop_pipe_[2] = {-1, -1};
  int spare_ = -1;                        // a descriptor to give up when there are no more
  std::map<int, std::string> handed_on_;  // socket -> its peer, as the system names it
  int64_t refused_ = 0;
  absl::Time last_log_ = absl::InfinitePast();
  absl::Time last_count_ = absl::InfinitePast();
  std::thread thread_;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_LISTENER_H_
