#include "services/engine/tokenizer/unicode.h"

#include <chrono>
#include <string>

#include "gtest/gtest.h"

namespace mechinterp::engine {
namespace {

// Unicode's list of White_Space: 25 characters.
TEST(IsWhiteSpace, IsUnicodesProperty) {
  int count = 0;
  for (char32_t character = 0; character <= 0x10FFFF; ++character) count += IsWhiteSpace(character) ? 1 : 0;
  EXPECT_EQ(count, 25);
  for (const char32_t character :
       {U'\t', U'\r', U' ', U'\u0085', U'\u00A0', U'\u2003', U'\u2029', U'\u3000'}) {
    EXPECT_TRUE(IsWhiteSpace(character)) << static_cast<uint32_t>(character);
  }
  for (const char32_t character : {U'\u180E', U'\u200B', U'\uFEFF', U'_'}) {
    EXPECT_FALSE(IsWhiteSpace(character)) << static_cast<uint32_t>(character);
  }
}

TEST(IsWordCharacter, TakesLettersMarksDigitsConnectorsAndJoiners) {
  for (const char32_t character :
       {U'a', U'Z', U'7', U'_', U'é', U'日', U'\u0301', U'٣', U'Ⅷ', U'\u200D', U'Ⓐ', U'ª'}) {
    EXPECT_TRUE(IsWordCharacter(character)) << static_cast<uint32_t>(character);
  }
  for (const char32_t character : {U' ', U'-', U'.', U'½', U'²', U'😀', U'▁', U'\uE000'}) {
    EXPECT_FALSE(IsWordCharacter(character)) << static_cast<uint32_t>(character);
  }
}

TEST(WhiteSpaceAtTheEnds, IsCountedInBytes) {
  EXPECT_EQ(LeadingWhiteSpace(" \u3000\u00A0x "), 6u);
  EXPECT_EQ(TrailingWhiteSpace(" x\u00A0\u3000\n"), 6u);
  EXPECT_EQ(LeadingWhiteSpace("\t\n"), 2u);
  EXPECT_EQ(TrailingWhiteSpace("\t\n"), 2u);
  EXPECT_EQ(LeadingWhiteSpace(""), 0u);
  EXPECT_EQ(TrailingWhiteSpace("x\x80"), 0u);
}

// Examples of Unicode Standard Annex #15.
TEST(ToForm, IsTheStandards) {
  const std::string text = "\uFB01 \u1E9B\u0323 A\u030A \u1100\u1161";
  EXPECT_EQ(ToForm(UnicodeForm::kNfc, text), "\uFB01 \u1E9B\u0323 \u00C5 \uAC00");
  EXPECT_EQ(ToForm(UnicodeForm::kNfd, text), "\uFB01 \u017F\u0323\u0307 A\u030A \u1100\u1161");
  EXPECT_EQ(ToForm(UnicodeForm::kNfkc, text), "fi \u1E69 \u00C5 \uAC00");
  EXPECT_EQ(ToForm(UnicodeForm::kNfkd, text), "fi s\u0323\u0307 A\u030A \u1100\u1161");
}

// A client may send a million marks on one letter.
TEST(ToForm, OrdersALongRunOfMarksInLittleTime) {
  std::string mixed = "q", ordered = "q";
  for (int i = 0; i < 300000; ++i) mixed += "\u0307\u0323";
  for (int i = 0; i < 300000; ++i) ordered += "\u0323";
  for (int i = 0; i < 300000; ++i) ordered += "\u0307";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(ToForm(UnicodeForm::kNfc, mixed) == ordered);
  // A quadratic sort takes minutes; a sanitizer or a busy machine does not.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(ToForm, LeavesMalformedBytesWhereTheyAre) {
  EXPECT_EQ(ToForm(UnicodeForm::kNfc,
                   "e\u0301\xFF"
                   "e\u0301\xE6\x97"),
            "\u00E9\xFF\u00E9\xE6\x97");
}

}  // namespace
}  // namespace mechinterp::engine
