#ifndef SERVICES_ENGINE_TOKENIZER_BYTE_ALPHABET_H_
#define SERVICES_ENGINE_TOKENIZER_BYTE_ALPHABET_H_

#include <optional>
#include <string>
#include <string_view>

namespace mechinterp::engine {

// GPT-2's byte-level alphabet: each of the 256 bytes is written as a visible
// character, so that a vocabulary over bytes can be stored as text. Printable
// Latin-1 stands for itself; the rest is moved to U+0100 and up (space is Ġ,
// newline is Ċ). Pure functions, safe from any thread.

std::string BytesToAlphabet(std::string_view bytes);

// The bytes that `text` stands for; nullopt when it has a character that is not
// in the alphabet (as the text of some added tokens does).
std::optional<std::string> AlphabetToBytes(std::string_view text);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_BYTE_ALPHABET_H_
