#include "services/common/text.h"

#include <algorithm>

namespace mechinterp {
namespace {

bool IsCharacterStart(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

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

}  // namespace mechinterp
