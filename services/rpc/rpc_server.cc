#include "services/rpc/rpc_server.h"

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "services/common/keepalive.h"
#include "services/common/listen_address.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// For calls that fail at the end of the grace period to say so themselves.
constexpr absl::Duration kTimeForLastWords = absl::Seconds(2);
// How long a new connection may take until it speaks HTTP/2, TLS included.
constexpr absl::Duration kHandshakeLimit = absl::Seconds(20);

// A process-wide switch that must be set before a server is built.
void EnableHealth() {
  static std::once_flag once;
  std::call_once(once, [] { grpc::EnableDefaultHealthCheckService(true); });
}

int Milliseconds(absl::Duration duration) { return static_cast<int>(absl::ToInt64Milliseconds(duration)); }

absl::Status CheckAddress(const RpcServerOptions& options) {
  if (IsLoopback(options.listen_address) || !options.tls.empty() || options.insecure) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "other machines reach ", options.listen_address,
      ", so it needs --tls-certificate and --tls-key (deploy/tls/make_certs.sh makes a pair), or "
      "--insecure where everybody on that network may use, read and delete everything"));
}

void SetLimits(const RpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.max_request_bytes);
  // What a few bytes inflate to is not known before it is done.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  grpc::ResourceQuota quota("transport");
  quota.Resize(static_cast<size_t>(options.max_transport_bytes));
  builder.SetResourceQuota(quota);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(options.idle_limit));
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(kHandshakeLimit));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive));
  AllowPings(builder);
}

}  // namespace

absl::Status CheckServerOptions(const RpcServerOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(ParseListenAddress(options.listen_address).status());
  ABSTRACT_RETURN_IF_ERROR(CheckAddress(options));
  return MakeServerCredentials(options.tls).status();
}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            const std::vector<ServiceMethods>& services) {
  ABSTRACT_ASSIGN_OR_RETURN(std::unique_ptr<RpcServer> server, Listen(options));
  server->Serve(services);
  return server;
}

void RpcServer::Serve(const std::vector<ServiceMethods>& services) {
  dispatcher_->Serve(services, reflection_);
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Listen(const RpcServerOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(CheckServerOptions(options));
  ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ServerCredentials> credentials,
                            MakeServerCredentials(options.tls));
  EnableHealth();
  auto result = std::unique_ptr<RpcServer>(new RpcServer());
  if (options.registry != nullptr) {
    result->metrics_ = std::make_shared<RpcMetrics>(options.registry);
    result->metrics_->connections_limit.Set(options.max_connections);
  }
  DispatcherOptions dispatch = options.dispatch;
  if (!options.otlp.endpoint.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(dispatch.spans, SpanExporter::Start(options.otlp, result->metrics_));
  }
  result->dispatcher_ = std::make_unique<Dispatcher>(dispatch, options.access, result->metrics_);
  result->reflection_ = options.reflection;

  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  result->acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  builder.RegisterCallbackGenericService(result->dispatcher_.get());
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr) return absl::InternalError("gRPC could not start a server");
  result->SetServing(false);

  ABSTRACT_ASSIGN_OR_RETURN(
      result->listener_,
      Listener::Start(
          {options.listen_address, options.max_connections, options.dispatch.limits.stall},
          [acceptor = result->acceptor_.get()](int listener, int socket) {
            grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
            connection.listener_fd = listener;
            connection.fd = socket;
            acceptor->HandleNewConnection(&connection);
          },
          [metrics = result->metrics_](int open, bool refused) {
            if (metrics == nullptr) return;
            metrics->connections.Set(open);
            if (refused) metrics->connections_refused.Increment();
          }));
  result->port_ = result->listener_->port();
  return result;
}

void RpcServer::SetServing(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
  if (metrics_ != nullptr) metrics_->serving.Set(serving ? 1 : 0);
}

void RpcServer::Shutdown(absl::Duration grace, const std::function<void()>& on_grace_end) {
  if (listener_ == nullptr) return;  // done before
  SetServing(false);
  dispatcher_->RefuseCalls();
  if (!dispatcher_->WaitUntilIdle(absl::Now() + grace)) {
    dispatcher_->EndQueuedCalls();
    if (on_grace_end != nullptr) {
      on_grace_end();
      dispatcher_->WaitUntilIdle(absl::Now() + kTimeForLastWords);
    }
  }
  listener_.reset();
  // Cancels what is left, and waits until it has ended.
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  while (!dispatcher_->WaitUntilIdle(absl::Now() + absl::Hours(1))) {
  }
}

}  // namespace mechinterp
