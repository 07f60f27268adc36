#include "services/engine/tokenizer/utf8.h"

#include <cstdint>

namespace mechinterp::engine {
namespace {

// A lead byte's promise: how many bytes follow, and the range of the first of
// them, which is what rules out overlong forms, surrogates and values past U+10FFFF.
struct Lead {
  int continuation_count = -1;  // -1: not a lead byte
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
};

Lead ReadLead(uint8_t byte) {
  if (byte < 0x80) return {0};
  if (byte < 0xC2) return {-1};
  if (byte < 0xE0) return {1};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte < 0xF4) return {3};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {-1};
}

}  // namespace

Utf8Unit ReadUtf8Unit(std::string_view bytes) {
  const auto first = static_cast<uint8_t>(bytes[0]);
  const Lead lead = ReadLead(first);
  if (lead.continuation_count < 0) return {Utf8Unit::kMalformed, 1};
  if (lead.continuation_count == 0) return {Utf8Unit::kCharacter, 1, first};

  const auto length = static_cast<size_t>(lead.continuation_count) + 1;
  char32_t code_point = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Utf8Unit::kTruncated, i};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {Utf8Unit::kMalformed, i};
    code_point = (code_point << 6) | (byte & 0x3Fu);
  }
  return {Utf8Unit::kCharacter, length, code_point};
}

Utf8Unit ReadLastUtf8Unit(std::string_view bytes) {
  for (size_t length = 1; length <= 4 && length <= bytes.size(); ++length) {
    const Utf8Unit unit = ReadUtf8Unit(bytes.substr(bytes.size() - length));
    if (unit.kind == Utf8Unit::kCharacter && unit.length == length) return unit;
  }
  return {Utf8Unit::kMalformed, 1};
}

size_t ValidUtf8PrefixLength(std::string_view bytes) {
  size_t position = 0;
  while (position < bytes.size()) {
    const Utf8Unit unit = ReadUtf8Unit(bytes.substr(position));
    if (unit.kind != Utf8Unit::kCharacter) break;
    position += unit.length;
  }
  return position;
}

size_t AppendWellFormed(std::string_view bytes, std::string* text) {
  while (true) {
    const size_t valid = ValidUtf8PrefixLength(bytes);
    text->append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) return 0;
    const Utf8Unit unit = ReadUtf8Unit(bytes);
    if (unit.kind == Utf8Unit::kTruncated) return bytes.size();
    text->append(kReplacementCharacter);
    bytes.remove_prefix(unit.length);
  }
}

}  // namespace mechinterp::engine
