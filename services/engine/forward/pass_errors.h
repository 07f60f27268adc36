#ifndef SERVICES_ENGINE_FORWARD_PASS_ERRORS_H_
#define SERVICES_ENGINE_FORWARD_PASS_ERRORS_H_

#include <exception>

#include "absl/status/status.h"

namespace mechinterp::engine {

// What a forward pass threw, as a status: ResourceExhausted for memory, of the host or of a
// device, Internal for anything else. Of libtorch's errors the text without its stack.
absl::Status PassError(const std::exception& error);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_PASS_ERRORS_H_
