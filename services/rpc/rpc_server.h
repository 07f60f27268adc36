#ifndef SERVICES_RPC_RPC_SERVER_H_
#define SERVICES_RPC_RPC_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "prometheus/registry.h"
#include "services/common/tls.h"
#include "services/rpc/access_control.h"
#include "services/rpc/dispatcher.h"
#include "services/rpc/listener.h"
#include "services/rpc/service_methods.h"

namespace mechinterp {

struct RpcServerOptions {
  // "127.0.0.1:50051"; port 0 lets the system choose. An address that other machines reach needs
  // `tls`, or `insecure`.
  std::string listen_address = "127.0.0.1:0";
  ServerTlsOptions tls;
  bool insecure = false;
  // Who may call; null: everybody.
  std::shared_ptr<AccessControl> access;
  // Queues, limits on clients that stall, log.
  DispatcherOptions dispatch;
  // Largest request accepted, as it comes over the wire; compressed ones are not. Responses are
  // streamed in pieces below 4 MiB.
  int max_request_bytes = 64 << 20;
  int max_connections = 1000;
  int max_streams_per_connection = 128;
  // What all connections together may hold of messages that are read or written.
  int64_t max_transport_bytes = int64_t{1} << 30;
  // A connection without calls is closed after this time; one that a peer has left without a
  // word, after two of these.
  absl::Duration idle_limit = absl::Minutes(15);
  absl::Duration keepalive = absl::Seconds(60);
  // Lets clients ask which services there are (grpc.reflection).
  bool reflection = true;
  // Where a span of each request goes, if anywhere.
  SpanExportOptions otlp;
  // Where metrics of calls go (rpc_metrics.h). May be null.
  std::shared_ptr<prometheus::Registry> registry;
};

// What Start would find wrong with the options before it listens.
absl::Status CheckServerOptions(const RpcServerOptions& options);

// A running gRPC server with the standard health service. Thread-safe.
class RpcServer {
 public:
  // Errors: InvalidArgument (address, TLS files, an open address without TLS, OTLP endpoint), Unavailable
  // (address in use; the message names it). What answers `services` must outlive the server.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                          const std::vector<ServiceMethods>& services);
  // Listens at once, and answers later: until Serve, calls are refused with UNAVAILABLE, reason
  // STARTING, and the health service says NOT_SERVING. Errors as above.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Listen(const RpcServerOptions& options);
  // Answers these from now on. Once; what answers them must live until Shutdown returns.
  void Serve(const std::vector<ServiceMethods>& services);
  ~RpcServer();

  int port() const { return port_; }
  // What the health service answers; NOT_SERVING until first called with true.
  void SetServing(bool serving);
  // Reports NOT_SERVING, refuses new calls, lets those in flight finish for at most `grace`. Then
  // what still waits for its turn ends with UNAVAILABLE, and `on_grace_end`, if there is one, may
  // make what runs fail in its own words; what is left two seconds later is cancelled. Returns at
  // once where no call is in flight, whoever is connected.
  void Shutdown(absl::Duration grace, const std::function<void()>& on_grace_end = nullptr);

 private:
  RpcServer() = default;

  std::shared_ptr<RpcMetrics> metrics_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Listener> listener_;  // first to end
  int port_ = 0;
  bool reflection_ = false;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_RPC_SERVER_H_
