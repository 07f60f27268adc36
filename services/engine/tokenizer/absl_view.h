#ifndef SERVICES_ENGINE_TOKENIZER_ABSL_VIEW_H_
#define SERVICES_ENGINE_TOKENIZER_ABSL_VIEW_H_

#include <string_view>

#include "absl/strings/string_view.h"

namespace mechinterp::engine {

// For absl's functions. Debian builds Abseil with a string_view of its own, which
// std::string_view does not convert to; elsewhere the two are the same type.
inline absl::string_view AbslView(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_ABSL_VIEW_H_
