#ifndef SERVICES_COMMON_LOGGING_H_
#define SERVICES_COMMON_LOGGING_H_

#include <string>

#include "absl/status/status.h"

namespace mechinterp {

// Sets spdlog's default logger to stderr with ISO times and the program's name.
// Call before gRPC is first used: it also quiets gRPC's own logs. `level`: trace, debug, info, warning, error
// or off; InvalidArgument otherwise.
absl::Status InitLogging(const std::string& program, const std::string& level);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_LOGGING_H_
