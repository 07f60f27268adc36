#ifndef SERVICES_ENGINE_TOKENIZER_UNICODE_H_
#define SERVICES_ENGINE_TOKENIZER_UNICODE_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// Unicode's properties and normalization forms. Pure functions, safe from any
// thread.

// White_Space, as `\s` and `is_whitespace` are in Hugging Face's Rust.
bool IsWhiteSpace(char32_t character);
// `\w` there: letters, marks, decimal digits, connectors (`_`), joiners.
bool IsWordCharacter(char32_t character);

// Bytes of white space at the start of a text, at its end.
size_t LeadingWhiteSpace(std::string_view text);
size_t TrailingWhiteSpace(std::string_view text);

// The text in that form; malformed UTF-8 stays as it is.
std::string ToForm(UnicodeForm form, std::string_view text);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_UNICODE_H_
