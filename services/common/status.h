#ifndef SERVICES_COMMON_STATUS_H_
#define SERVICES_COMMON_STATUS_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "services/common/violations.h"

namespace mechinterp {

// Error details ride in absl::Status payloads as serialized google.rpc
// messages, keyed by type URL; ToGrpcStatus puts them into the trailer and
// FromGrpcStatus takes them out again, so nothing is lost on the way.

// The `domain` of every ErrorInfo of this project.
inline constexpr std::string_view kErrorDomain = "mechinterp";

// A status with google.rpc.ErrorInfo. `reason` is UPPER_SNAKE_CASE.
absl::Status ErrorWithReason(absl::StatusCode code, std::string_view message, std::string_view reason,
                             const std::map<std::string, std::string>& metadata = {});

// RESOURCE_EXHAUSTED with RetryInfo and ErrorInfo.
absl::Status TryAgainLater(std::string_view message, std::string_view reason, absl::Duration delay);

// OK when there are none; otherwise INVALID_ARGUMENT with BadRequest and ErrorInfo
// (reason INVALID_REQUEST), its message listing the first of them. What would not fit into
// gRPC's trailers (some 2400 bytes, 400 a description) is cut and counted.
absl::Status ToStatus(const Violations& violations);

// Messages are cut at 1600 bytes: gRPC clients refuse trailers above 8 KiB.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// "NOT_FOUND"; "UNKNOWN" for a number that is no code.
std::string CodeName(grpc::StatusCode code);

// ErrorInfo's reason; empty without one.
std::string ErrorReason(const absl::Status& status);
// RetryInfo's delay, if there is one.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// Human-readable: code, message, then field violations, reason and retry delay
// on lines of their own. For logs and command lines.
std::string DescribeStatus(const absl::Status& status);

// `status` with "context: " put before its message; payloads kept.
absl::Status WithContext(const absl::Status& status, std::string_view context);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_STATUS_H_
