#include "services/engine/tokenizer/byte_alphabet.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace mechinterp::engine {
namespace {

TEST(ByteAlphabet, WritesPrintableAsciiAsItself) {
  EXPECT_EQ(BytesToAlphabet("Hello!~"), "Hello!~");
  EXPECT_EQ(AlphabetToBytes("Hello!~"), "Hello!~");
}

TEST(ByteAlphabet, WritesOtherBytesAsGpt2Does) {
  EXPECT_EQ(BytesToAlphabet(" "), "Ġ");
  EXPECT_EQ(BytesToAlphabet("\n"), "Ċ");
  EXPECT_EQ(BytesToAlphabet(std::string(1, '\0')), "Ā");
  EXPECT_EQ(BytesToAlphabet("\x7F"), "ġ");
  EXPECT_EQ(BytesToAlphabet("\xA0"), "ł");
  EXPECT_EQ(BytesToAlphabet("\xAD"), "Ń");
  EXPECT_EQ(BytesToAlphabet("\xFF"), "ÿ");
}

TEST(ByteAlphabet, GivesEachByteACharacterOfItsOwn) {
  std::set<std::string> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    const std::string character = BytesToAlphabet(bytes);
    EXPECT_EQ(AlphabetToBytes(character), bytes) << byte;
    characters.insert(character);
  }
  EXPECT_EQ(characters.size(), 256u);
}

TEST(ByteAlphabet, RefusesCharactersOutsideIt) {
  EXPECT_EQ(AlphabetToBytes("a b"), std::nullopt);
  EXPECT_EQ(AlphabetToBytes("ń"), std::nullopt);  // U+0144, one past the last
  EXPECT_EQ(AlphabetToBytes("日"), std::nullopt);
  EXPECT_EQ(AlphabetToBytes("\xC4"), std::nullopt);
}

}  // namespace
}  // namespace mechinterp::engine
