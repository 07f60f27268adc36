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

}  // namespace mechinterp::engine
