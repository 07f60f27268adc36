#ifndef SERVICES_ENGINE_TOKENIZER_UTF8_H_
#define SERVICES_ENGINE_TOKENIZER_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace mechinterp::engine {

// What stands at the start of a byte string. Pure functions, safe from any thread.
struct Utf8Unit {
  enum Kind {
    kCharacter,  // one well-formed character
    kMalformed,  // the longest prefix of a character that can no longer be completed
    kTruncated   // a prefix of a character that more bytes could still complete
  };
  Kind kind = kMalformed;
  size_t length = 0;
  char32_t code_point = 0;  // of kCharacter only
};

// `bytes` must not be empty. Overlong forms and surrogates are malformed.
Utf8Unit ReadUtf8Unit(std::string_view bytes);

// The character that `bytes`, which are not empty, end with; else one malformed byte.
Utf8Unit ReadLastUtf8Unit(std::string_view bytes);

// Length of the longest well-formed prefix.
size_t ValidUtf8PrefixLength(std::string_view bytes);

// Appends `bytes` to `text`, each malformed unit as U+FFFD (one per maximal
// subpart, as Unicode recommends and Hugging Face's decoder does). Returns how
// many bytes at the end were not consumed: those of a truncated character.
size_t AppendWellFormed(std::string_view bytes, std::string* text);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_UTF8_H_
