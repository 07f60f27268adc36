#include "services/rpc/access_control.h"

#include "services/common/status.h"

namespace mechinterp {

absl::Status CheckPermission(const Caller& caller, const MethodTraits& traits) {
  if (!caller.read_only || traits.access == Access::kRead) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kPermissionDenied,
                         "this token may read and run, but neither store nor delete", "READ_ONLY_TOKEN");
}

}  // namespace mechinterp
