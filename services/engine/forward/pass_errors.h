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

// Logits of a position that are not finite, and where on the way to them values first were not:
// at which position, and what norm read them; none: the head made them so.
struct NotFinite {
  int logits_position = 0;
  int position = 0;
  std::optional<HookSite> norm;
};
// FailedPrecondition, in words.
absl::Status NotFiniteError(const NotFinite& found);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_PASS_ERRORS_H_
