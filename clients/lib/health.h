#ifndef CLIENTS_LIB_HEALTH_H_
#define CLIENTS_LIB_HEALTH_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace mechinterp {

// What grpc.health.v1.Health answers for a whole server.
enum class ServingState { kUnknown, kServing, kNotServing };

// Asks once. Thread-safe. Unimplemented when the server has no health service,
// Unavailable when there is none to ask.
absl::StatusOr<ServingState> CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                                         absl::Duration timeout);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_HEALTH_H_
