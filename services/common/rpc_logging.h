#ifndef SERVICES_COMMON_RPC_LOGGING_H_
#define SERVICES_COMMON_RPC_LOGGING_H_

#include <memory>

#include "grpcpp/support/server_interceptor.h"

namespace mechinterp {

// Writes a line to spdlog's default logger for every RPC of a server, when it ends: method,
// peer, status, duration, and what went wrong. At level debug; at warning when the status
// tells of a fault of the server (INTERNAL, UNKNOWN, DATA_LOSS). What clients sent is in
// the line only as far as the error's message quotes it, without control characters.
// Thread-safe.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeRpcLoggingFactory();

}  // namespace mechinterp

#endif  // SERVICES_COMMON_RPC_LOGGING_H_
