#include "services/common/rpc_server.h"

#include <chrono>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "services/common/keepalive.h"
#include "services/common/listen_address.h"
#include "services/common/rpc_logging.h"
#include "services/common/rpc_metrics.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// Threads beyond the handlers': gRPC counts those that wait for calls too.
constexpr int kPollerThreads = 4;
// For handlers that fail at the end of the grace period to say so themselves.
constexpr std::chrono::seconds kTimeForLastWords{2};

// Both are process-wide switches that must be set before a server is built.
void EnableHealthAndReflection() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> Interceptors(
    const RpcServerOptions& options) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(MakeRpcLoggingFactory());
  if (options.registry != nullptr) interceptors.push_back(MakeRpcMetricsFactory(options.registry));
  return interceptors;
}

}  // namespace

RpcServer::RpcServer(std::unique_ptr<grpc::Server> server, int port)
    : server_(std::move(server)), port_(port) {}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            const std::vector<grpc::Service*>& services) {
  ABSTRACT_RETURN_IF_ERROR(ParseListenAddress(options.listen_address).status());
  EnableHealthAndReflection();

  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen_address, grpc::InsecureServerCredentials(), &port);
  // Otherwise a second server would share the port silently, and requests would
  // reach either.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  AllowPings(builder);
  builder.SetMaxReceiveMessageSize(options.max_request_bytes);
  grpc::ResourceQuota quota("handlers");
  quota.SetMaxThreads(options.max_concurrent_rpcs + kPollerThreads);
  builder.SetResourceQuota(quota);
  builder.experimental().SetInterceptorCreators(Interceptors(options));
  for (grpc::Service* service : services) builder.RegisterService(service);

  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) return ListenFailure(options.listen_address);
  auto rpc_server = std::unique_ptr<RpcServer>(new RpcServer(std::move(server), port));
  rpc_server->SetServing(false);
  return rpc_server;
}

void RpcServer::SetServing(bool serving) { server_->GetHealthCheckService()->SetServingStatus(serving); }

void RpcServer::Shutdown(absl::Duration grace, const std::function<void()>& on_grace_end) {
  SetServing(false);
  const auto deadline = std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace);
  if (on_grace_end == nullptr) {
    server_->Shutdown(deadline);
  } else {
    std::promise<void> all_done;
    std::thread timer([&, done = all_done.get_future()] {
      if (done.wait_until(deadline) == std::future_status::timeout) on_grace_end();
    });
    server_->Shutdown(deadline + kTimeForLastWords);
    all_done.set_value();
    timer.join();
  }
  server_->Wait();
}

}  // namespace mechinterp
