#include "services/engine/tokenizer/utf8.h"

#include <string>
#include <string_view>
#include <utility>

#include "gtest/gtest.h"

namespace mechinterp::engine {
namespace {

TEST(ReadUtf8Unit, ReadsCharactersOfEachLength) {
  for (const auto& [text, code_point] : {std::pair<std::string, char32_t>{"A", U'A'},
                                         {"é", U'é'},
                                         {"\u0800", U'\u0800'},
                                         {"日", U'日'},
                                         {"\uD7FF", U'\uD7FF'},
                                         {"\U00010000", U'\U00010000'},
                                         {"😀", U'😀'},
                                         {"\U0010FFFF", U'\U0010FFFF'}}) {
    const Utf8Unit unit = ReadUtf8Unit(text + "tail");
    EXPECT_EQ(unit.kind, Utf8Unit::kCharacter) << text;
    EXPECT_EQ(unit.length, text.size()) << text;
    EXPECT_EQ(unit.code_point, code_point) << text;
  }
}

TEST(ReadUtf8Unit, TellsTruncatedFromMalformed) {
  EXPECT_EQ(ReadUtf8Unit("\xF0\x9F\x98").kind, Utf8Unit::kTruncated);
  EXPECT_EQ(ReadUtf8Unit("\xF0\x9F\x98").length, 3u);
  EXPECT_EQ(ReadUtf8Unit("\xF0\x9F\x98x").kind, Utf8Unit::kMalformed);
  EXPECT_EQ(ReadUtf8Unit("\xF0\x9F\x98x").length, 3u);
}

TEST(ReadUtf8Unit, RefusesOverlongSurrogatesAndValuesPastTheLast) {
  for (const std::string_view bytes : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                                       "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    const Utf8Unit unit = ReadUtf8Unit(bytes);
    EXPECT_EQ(unit.kind, Utf8Unit::kMalformed) << static_cast<int>(bytes[0]);
    EXPECT_EQ(unit.length, 1u);
  }
}

TEST(ReadLastUtf8Unit, ReadsTheCharacterAtTheEnd) {
  for (const std::string& text : {std::string("A"), std::string("é"), std::string("日"), std::string("😀")}) {
    const Utf8Unit unit = ReadLastUtf8Unit("\xFFx" + text);
    EXPECT_EQ(unit.kind, Utf8Unit::kCharacter) << text;
    EXPECT_EQ(unit.length, text.size()) << text;
    EXPECT_EQ(unit.code_point, ReadUtf8Unit(text).code_point) << text;
  }
  for (const std::string_view bytes : {"\x80", "a\xE6\x97", "日\x97"}) {
    EXPECT_EQ(ReadLastUtf8Unit(bytes).kind, Utf8Unit::kMalformed);
    EXPECT_EQ(ReadLastUtf8Unit(bytes).length, 1u);
  }
}

// The example of the Unicode standard, table 3-11.
TEST(AppendWellFormed, ReplacesEachMaximalSubpart) {
  std::string text;
  const std::string bytes = "\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64";
  EXPECT_EQ(AppendWellFormed(bytes, &text), 0u);
  EXPECT_EQ(text, "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
}

TEST(AppendWellFormed, LeavesATruncatedEndToTheCaller) {
  std::string text;
  EXPECT_EQ(AppendWellFormed("ok\xE6\x97", &text), 2u);
  EXPECT_EQ(text, "ok");
}

}  // namespace
}  // namespace mechinterp::engine
