#include "services/engine/forward/pass_errors.h"

#include <new>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace mechinterp::engine {

// libtorch's own errors know only their text, and that with a stack.
absl::Status PassError(const std::exception& error) {
  const std::string text(absl::StripTrailingAsciiWhitespace(
      std::string(error.what()).substr(0, std::string(error.what()).find("\nException raised from"))));
  const std::string lower = absl::AsciiStrToLower(text);
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr || absl::StrContains(lower, "out of memory") ||
      absl::StrContains(lower, "can't allocate memory") || absl::StrContains(lower, "insufficient memory") ||
      absl::StrContains(lower, "outofmemory")) {
    return absl::ResourceExhaustedError(absl::StrCat("forward pass: the device is out of memory: ", text));
  }
  return absl::InternalError(absl::StrCat("forward pass: ", text));
}

absl::Status NotFiniteError(const NotFinite& found) {
  std::string origin = "the output head makes them so";
  if (const std::optional<HookSite>& norm = found.norm) {
    std::string after = "from the embeddings on";
    if (norm->point == HookPoint::kLnFinalScale) {
      after = "after the MLP of the last layer";
    } else if (norm->point == HookPoint::kLn2Scale) {
      after = absl::StrCat("after the attention of layer ", norm->layer);
    } else if (norm->layer > 0) {
      after = absl::StrCat("after the MLP of layer ", norm->layer - 1);
    }
    origin = absl::StrCat("the residual stream first is not at position ", found.position, " where ",
                          SiteName(*norm), " reads it: ", after);
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the logits of position ", found.logits_position, " are not finite (NaN or infinity); ", origin,
      ". Look for edits with very large values; otherwise serve the model with --compute-dtype f32"));
}

}  // namespace mechinterp::engine
