#ifndef SERVICES_COMMON_TEXT_H_
#define SERVICES_COMMON_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace mechinterp {

// UTF-8 texts cut where a character begins. Code points count as characters. Pure.

size_t CharacterCount(std::string_view text);

// The longest beginning of at most so many bytes, or characters.
std::string_view FirstBytes(std::string_view text, size_t max_bytes);
std::string_view FirstCharacters(std::string_view text, size_t max_characters);

// The text itself where it has at most `max_bytes`; otherwise its beginning of at most
// so many and then `ellipsis`, which does not count.
std::string Shortened(std::string_view text, size_t max_bytes, std::string_view ellipsis = "...");

// To be shown, whoever wrote it: '?' stands for each byte that is part of no well-formed character,
// and for control characters but line ends.
std::string Printable(std::string_view text);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_TEXT_H_
