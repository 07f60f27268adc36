#include "services/engine/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

struct Free {
  void operator()(utf8proc_uint8_t* text) const { std::free(text); }
};

int OptionsOf(UnicodeForm form) {
  const int stable = UTF8PROC_STABLE;
  switch (form) {
    case UnicodeForm::kNfc:
      return stable | UTF8PROC_COMPOSE;
    case UnicodeForm::kNfd:
      return stable | UTF8PROC_DECOMPOSE;
    case UnicodeForm::kNfkc:
      return stable | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    case UnicodeForm::kNfkd:
      return stable | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  }
  return stable;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char byte) { return static_cast<uint8_t>(byte) < 0x80; });
}

// Letters by what they are used for, though not by their category.
bool IsCircledOrSquaredLetter(char32_t character) {
  return (character >= 0x24B6 && character <= 0x24E9) || (character >= 0x1F130 && character <= 0x1F149) ||
         (character >= 0x1F150 && character <= 0x1F169) || (character >= 0x1F170 && character <= 0x1F189);
}

void AppendValidInForm(int options, std::string_view text, std::string* result) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t length = IsAscii(text)
                                      ? -1
                                      : utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                                     static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                                     static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, Free> owner(mapped);
  if (length < 0) {
    result->append(text);
  } else {
    result->append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
  }
}

}  // namespace

bool IsWhiteSpace(char32_t character) {
  return (character >= 0x09 && character <= 0x0D) || character == 0x20 || character == 0x85 ||
         character == 0xA0 || character == 0x1680 || (character >= 0x2000 && character <= 0x200A) ||
         character == 0x2028 || character == 0x2029 || character == 0x202F || character == 0x205F ||
         character == 0x3000;
}

bool IsWordCharacter(char32_t character) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return character == 0x200C || character == 0x200D || IsCircledOrSquaredLetter(character);
  }
}

size_t LeadingWhiteSpace(std::string_view text) {
  size_t length = 0;
  while (length < text.size()) {
    const Utf8Unit unit = ReadUtf8Unit(text.substr(length));
    if (unit.kind != Utf8Unit::kCharacter || !IsWhiteSpace(unit.code_point)) break;
    length += unit.length;
  }
  return length;
}

size_t TrailingWhiteSpace(std::string_view text) {
  size_t length = 0;
  while (length < text.size()) {
    const Utf8Unit unit = ReadLastUtf8Unit(text.substr(0, text.size() - length));
    if (unit.kind != Utf8Unit::kCharacter || !IsWhiteSpace(unit.code_point)) break;
    length += unit.length;
  }
  return length;
}

std::string ToForm(UnicodeForm form, std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t valid = ValidUtf8PrefixLength(text);
    AppendValidInForm(OptionsOf(form), text.substr(0, valid), &result);
    text.remove_prefix(valid);
    if (text.empty()) break;
    const size_t malformed = ReadUtf8Unit(text).length;
    result.append(text.substr(0, malformed));
    text.remove_prefix(malformed);
  }
  return result;
}

}  // namespace mechinterp::engine
