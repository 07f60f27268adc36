#ifndef SERVICES_RPC_ACCESS_CONTROL_H_
#define SERVICES_RPC_ACCESS_CONTROL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/rpc/caller.h"
#include "services/rpc/service_methods.h"

namespace mechinterp {

// Decides who may call what. Thread-safe.
class AccessControl {
 public:
  virtual ~AccessControl() = default;

  // Who calls. `authorization`: the metadata of that name, empty where there is none. `host`: the
  // peer's address without its port. Errors: UNAUTHENTICATED, RESOURCE_EXHAUSTED with RetryInfo
  // after too many failures from one host.
  virtual absl::StatusOr<Caller> Identify(const std::string& authorization, const std::string& host) = 0;
  // Asked once a second of a call in progress: UNAUTHENTICATED once its token is no longer good.
  virtual absl::Status Recheck(const Caller& caller) = 0;
};

// Whether the caller may call the method: PERMISSION_DENIED if not.
absl::Status CheckPermission(const Caller& caller, const MethodTraits& traits);

}  // namespace mechinterp

#endif  // SERVICES_RPC_ACCESS_CONTROL_H_
