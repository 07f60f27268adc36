#include "services/common/text.h"

#include "gtest/gtest.h"
#include "services/common/hash.h"

namespace mechinterp {
namespace {

// U+00E9 takes two bytes, U+20AC three.
TEST(Text, CountsCharacters) {
  EXPECT_EQ(CharacterCount(""), 0);
  EXPECT_EQ(CharacterCount("a\u00e9\u20ac"), 3);
}

TEST(Text, CutsBytesWhereACharacterBegins) {
  const std::string text = "a\u00e9\u20ac";
  const char* const expected[] = {
      "", "a", "a", "a\u00e9", "a\u00e9", "a\u00e9", "a\u00e9\u20ac", "a\u00e9\u20ac"};
  for (size_t bytes = 0; bytes < std::size(expected); ++bytes) {
    EXPECT_EQ(FirstBytes(text, bytes), expected[bytes]) << bytes;
  }
}

TEST(Text, CutsCharacters) {
  EXPECT_EQ(FirstCharacters("\u00e9\u00e9", 0), "");
  EXPECT_EQ(FirstCharacters("\u00e9\u00e9", 1), "\u00e9");
  EXPECT_EQ(FirstCharacters("\u00e9\u00e9", 3), "\u00e9\u00e9");
}

TEST(Text, MarksWhatItShortens) {
  EXPECT_EQ(Shortened("abc", 3), "abc");
  EXPECT_EQ(Shortened("abcd", 3), "abc...");
  EXPECT_EQ(Shortened("\u00e9\u00e9", 3, "\u2026"), "\u00e9\u2026");
}

TEST(Text, IsPrintableWithoutWhatIsNoCharacter) {
  EXPECT_EQ(Printable("a\n\u00e9\u65e5\U0001f600\u00a0"), "a\n\u00e9\u65e5\U0001f600\u00a0");
  EXPECT_EQ(Printable(std::string_view("\0\t\x1b[2J\x7f\u0085", 9)), "???[2J??");
  // Overlong, a surrogate, past the last plane, cut short, a continuation alone.
  EXPECT_EQ(Printable("\xc0\x80 \xe0\x9f\xbf \xed\xa0\x80 \xf4\x90\x80\x80 \xf0\x8f\xbf\xbf"),
            "?? ??? ??? ???? ????");
  EXPECT_EQ(Printable("\xe6\x97 \xbf\xff"), "?? ??");
}

// From the authors' reference implementations.
TEST(Hash, GivesThePublishedValues) {
  EXPECT_EQ(Fnv1a(""), 0xcbf29ce484222325u);
  EXPECT_EQ(Fnv1a("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(Fnv1a("foobar"), 0x85944171f73967e8u);
  EXPECT_EQ(Fnv1a("bar", Fnv1a("foo")), Fnv1a("foobar"));
  SplitMix64 random(1234567);
  EXPECT_EQ(random.Next(), 6457827717110365317u);
  EXPECT_EQ(random.Next(), 3203168211198807973u);
}

}  // namespace
}  // namespace mechinterp
