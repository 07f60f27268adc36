#ifndef SERVICES_COMMON_RPC_SERVER_H_
#define SERVICES_COMMON_RPC_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "prometheus/registry.h"

namespace mechinterp {

struct RpcServerOptions {
  // "127.0.0.1:50051"; port 0 lets the system choose.
  std::string listen_address = "127.0.0.1:0";
  // Threads that run handlers; one RPC occupies one while it runs.
  int max_concurrent_rpcs = 64;
  // Largest request accepted. Responses are streamed in pieces below 4 MiB.
  int max_request_bytes = 64 << 20;
  // Where per-RPC metrics go (counts by method and code, latency histograms,
  // RPCs in flight). May be null.
  std::shared_ptr<prometheus::Registry> registry;
};

// A running gRPC server with the standard health service and reflection; logs its RPCs
// (rpc_logging.h).
// Thread-safe. TLS and authentication are added here when they come.
class RpcServer {
 public:
  // Errors: InvalidArgument (address), Unavailable (address in use; the message
  // names it). `services` must outlive the server.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                          const std::vector<grpc::Service*>& services);
  ~RpcServer();

  int port() const { return port_; }
  // What the health service answers; NOT_SERVING until first called with true.
  void SetServing(bool serving);
  // Reports NOT_SERVING, refuses new calls, lets those in flight finish for at
  // most `grace`. Then `on_grace_end`, if there is one, may make them fail in
  // their own words (from another thread); what is left two seconds later is
  // cancelled. Returns when none is left.
  void Shutdown(absl::Duration grace, const std::function<void()>& on_grace_end = nullptr);

 private:
  explicit RpcServer(std::unique_ptr<grpc::Server> server, int port);
  std::unique_ptr<grpc::Server> server_;
  int port_;
};

// Blocks SIGINT and SIGTERM in the calling thread and those it starts later;
// call first thing in main. Wait() returns when one of them arrives.
class TerminationSignals {
 public:
  TerminationSignals();
  // The signal's number.
  int Wait();
};

}  // namespace mechinterp

#endif  // SERVICES_COMMON_RPC_SERVER_H_
