#include "services/engine/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

// 188 bytes stand for themselves; the other 68 take U+0100 to U+0143 in order.
constexpr char32_t kFirstMoved = 0x100;
constexpr char32_t kAlphabetEnd = kFirstMoved + 68;

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> character_of{};
  std::array<int16_t, kAlphabetEnd> byte_of{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.byte_of) byte = -1;
  char32_t next_moved = kFirstMoved;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = StandsForItself(byte) ? static_cast<char32_t>(byte) : next_moved++;
    alphabet.character_of[byte] = character;
    alphabet.byte_of[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::string BytesToAlphabet(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    const char32_t character = kAlphabet.character_of[static_cast<uint8_t>(byte)];
    if (character < 0x80) {
      text.push_back(static_cast<char>(character));
    } else {  // never past U+0143: two bytes of UTF-8
      text.push_back(static_cast<char>(0xC0 | (character >> 6)));
      text.push_back(static_cast<char>(0x80 | (character & 0x3F)));
    }
  }
  return text;
}

std::optional<std::string> AlphabetToBytes(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    const Utf8Unit unit = ReadUtf8Unit(text);
    if (unit.kind != Utf8Unit::kCharacter || unit.code_point >= kAlphabetEnd) return std::nullopt;
    const int byte = kAlphabet.byte_of[unit.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    text.remove_prefix(unit.length);
  }
  return bytes;
}

}  // namespace mechinterp::engine
