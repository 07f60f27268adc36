#ifndef SERVICES_ENGINE_FORWARD_PASS_ERRORS_H_
#define SERVICES_ENGINE_FORWARD_PASS_ERRORS_H_

#include <exception>
#include <optional>

#include "absl/status/status.h"
#include "services/engine/interventions/hook_point.h"

namespace mechinterp::engine {

// What a forward pass threw, as a status: ResourceExhausted for memory, of the host or of a
// device, Internal for anything else. Of libtorch's errors the text without its stack.
absl::Status PassError(const std::exception& error);

// FailedPrecondition: the logits of a position are not finite, because what `norm` read was
// not, or, where there is none, because the head's products are not.
absl::Status NotFiniteLogits(int position, const std::optional<HookSite>& norm);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_PASS_ERRORS_H_
