#include "services/common/text.h"

#include <algorithm>

namespace mechinterp {
namespace {

bool IsCharacterStart(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

// Bytes of the well-formed character that `text`, which is not empty, begins with; 0 where it does not.
size_t CharacterBytes(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t bytes = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned second = byte(1);
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool no_character = (lead == 0xed && second >= 0xa0) || (lead == 0xf4 && second >= 0x90);
  return overlong || no_character ? 0 : bytes;
}

}  // namespace

size_t CharacterCount(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), IsCharacterStart));
}

std::string_view FirstBytes(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  while (end > 0 && !IsCharacterStart(text[end])) --end;
  return text.substr(0, end);
}

std::string_view FirstCharacters(std::string_view text, size_t max_characters) {
  size_t characters = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (IsCharacterStart(text[i]) && ++characters > max_characters) return text.substr(0, i);
  }
  return text;
}

std::string Shortened(std::string_view text, size_t max_bytes, std::string_view ellipsis) {
  std::string shortened(FirstBytes(text, max_bytes));
  if (shortened.size() < text.size()) shortened += ellipsis;
  return shortened;
}

std::string Printable(std::string_view text) {
  std::string printable;
  while (!text.empty()) {
    const size_t bytes = CharacterBytes(text);
    const auto first = static_cast<unsigned char>(text[0]);
    const bool is_control = (first < 0x20 && first != '\n') || first == 0x7f ||
                            (bytes == 2 && first == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0);
    const size_t taken = bytes == 0 ? 1 : bytes;
    printable.append(bytes == 0 || is_control ? "?" : text.substr(0, taken));
    text.remove_prefix(taken);
  }
  return printable;
}

}  // namespace mechinterp
