#ifndef SERVICES_COMMON_RPC_METRICS_H_
#define SERVICES_COMMON_RPC_METRICS_H_

#include <memory>

#include "grpcpp/support/server_interceptor.h"
#include "prometheus/registry.h"

namespace mechinterp {

// Records every RPC of a server under the names that go-grpc-prometheus made
// customary, so that existing Grafana panels fit:
//   grpc_server_started_total     {grpc_service, grpc_method}
//   grpc_server_handled_total     {grpc_service, grpc_method, grpc_code}
//   grpc_server_handling_seconds  {grpc_service, grpc_method}   histogram
//   grpc_server_in_flight         {grpc_service, grpc_method}   gauge
// Thread-safe.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeRpcMetricsFactory(
    std::shared_ptr<prometheus::Registry> registry);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_RPC_METRICS_H_
