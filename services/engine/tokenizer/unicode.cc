#include "services/engine/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

utf8proc_option_t OptionsOf(UnicodeForm form) {
  int options = UTF8PROC_STABLE;
  const bool composed = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  options |= composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd) options |= UTF8PROC_COMPAT;
  return static_cast<utf8proc_option_t>(options);
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char byte) { return static_cast<uint8_t>(byte) < 0x80; });
}

// Letters by what they are used for, though not by their category.
bool IsCircledOrSquaredLetter(char32_t character) {
  return (character >= 0x24B6 && character <= 0x24E9) || (character >= 0x1F130 && character <= 0x1F149) ||
         (character >= 0x1F150 && character <= 0x1F169) || (character >= 0x1F170 && character <= 0x1F189);
}

using CodePoints = std::vector<utf8proc_int32_t>;

CodePoints Decomposed(std::string_view text, utf8proc_option_t options) {
  CodePoints points;
  points.reserve(text.size());
  int unused_boundary = 0;
  while (!text.empty()) {
    const Utf8Unit unit = ReadUtf8Unit(text);
    text.remove_prefix(unit.length);
    utf8proc_int32_t parts[32];  // no character has more than 18
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(unit.code_point), parts,
                                               std::size(parts), options, &unused_boundary);
    points.insert(points.end(), parts, parts + std::clamp<utf8proc_ssize_t>(count, 0, std::size(parts)));
  }
  return points;
}

// Each run of marks by their combining classes. utf8proc does this too, in time that
// is quadratic in the run's length, which is the client's choice.
void SortMarks(CodePoints* points) {
  const auto class_of = [](utf8proc_int32_t point) { return utf8proc_get_property(point)->combining_class; };
  const auto is_mark = [&](utf8proc_int32_t point) { return class_of(point) != 0; };
  auto begin = points->begin();
  while ((begin = std::find_if(begin, points->end(), is_mark)) != points->end()) {
    const auto end = std::find_if_not(begin, points->end(), is_mark);
    std::stable_sort(begin, end, [&](auto left, auto right) { return class_of(left) < class_of(right); });
    begin = end;
  }
}

void AppendValidInForm(utf8proc_option_t options, std::string_view text, std::string* result) {
  if (IsAscii(text)) {
    result->append(text);
    return;
  }
  CodePoints points = Decomposed(text, options);
  SortMarks(&points);
  const auto count = static_cast<utf8proc_ssize_t>(points.size());
  points.push_back(0);  // room for the zero that it writes
  const utf8proc_ssize_t length = utf8proc_reencode(points.data(), count, options);
  result->append(reinterpret_cast<const char*>(points.data()), static_cast<size_t>(length));
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
