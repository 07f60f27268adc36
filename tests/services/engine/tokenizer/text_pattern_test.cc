#include "services/engine/tokenizer/text_pattern.h"

#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<TextPattern::Part> Parts(const Pattern& pattern, std::string_view text) {
  const absl::StatusOr<TextPattern> compiled = TextPattern::Compile(pattern);
  EXPECT_THAT(compiled, IsOk());
  return compiled.ok() ? compiled->Cut(text) : std::vector<TextPattern::Part>();
}

// What is not empty of the parts.
std::vector<std::string_view> Split(std::string_view regex, std::string_view text) {
  std::vector<std::string_view> pieces;
  for (const TextPattern::Part& part : Parts({std::string(regex), true}, text)) {
    if (!part.text.empty()) pieces.push_back(part.text);
  }
  return pieces;
}

TEST(TextPattern, KeepsMatchesAndWhatLiesBetweenThem) {
  EXPECT_THAT(Split(R"(\d)", "ab12c"), ElementsAre("ab", "1", "2", "c"));
  EXPECT_THAT(Split(R"(\d)", "abc"), ElementsAre("abc"));
  EXPECT_THAT(Split(R"(\d)", ""), IsEmpty());
}

TEST(TextPattern, CutsAtEmptyMatchesWithoutMakingEmptyPieces) {
  EXPECT_THAT(Split(R"((?=\d))", "ab1é2"), ElementsAre("ab", "1é", "2"));
  EXPECT_THAT(Split("", "aé"), ElementsAre("a", "é"));
}

TEST(TextPattern, KnowsUnicodeClasses) {
  EXPECT_THAT(Split(R"(\p{L}+|\p{N}+)", "naïve٣४日本!"), ElementsAre("naïve", "٣४", "日本", "!"));
}

// Unicode's White_Space, which Oniguruma's \s is: with U+0085 and U+3000, and
// without U+180E and U+200B, the first of which PCRE2 would take.
TEST(TextPattern, TakesForSpaceWhatUnicodeDoes) {
  EXPECT_THAT(Split(R"(\s+)", "a\u0085\u3000\x0B\u2028z"), ElementsAre("a", "\u0085\u3000\x0B\u2028", "z"));
  EXPECT_THAT(Split(R"(\s+)", "a\u180E\u200Bz"), ElementsAre("a\u180E\u200Bz"));
  EXPECT_THAT(Split(R"([^\s]+)", "a\u180E z"), ElementsAre("a\u180E", " ", "z"));
  EXPECT_THAT(Split(R"(\S+)", "a\u180E z"), ElementsAre("a\u180E", " ", "z"));
}

TEST(TextPattern, SplitsLongRunsOfSpaces) {
  const std::string text = std::string(300000, ' ') + "x";
  const auto pieces = Split(R"( ?[^\s]+|\s*[\r\n]+|\s+(?!\S)|\s+)", text);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[1], " x");
}

TEST(TextPattern, TellsMatchesFromWhatLiesBetween) {
  const auto expect_parts = [](const Pattern& pattern) {
    const std::vector<TextPattern::Part> parts = Parts(pattern, "a..b.");
    ASSERT_EQ(parts.size(), 5u);
    for (size_t i = 0; i < parts.size(); ++i) EXPECT_EQ(parts[i].is_match, parts[i].text == ".") << i;
  };
  expect_parts({".", false});
  expect_parts({R"(\.)", true});
}

TEST(TextPattern, FindsTextInAnyBytesAndRegexesBetweenMalformedOnes) {
  EXPECT_EQ(Parts({"b", false},
                  "\xFF"
                  "b\xFF")
                .size(),
            3u);
  EXPECT_THAT(Split("[^a]+",
                    "a\xFF\xF0\x9F"
                    "b"),
              ElementsAre("a", "\xFF", "\xF0\x9F", "b"));
}

TEST(TextPattern, ReplacesByTheContentAsItStands) {
  EXPECT_EQ(TextPattern::Compile({"(a)", true})->ReplaceAll("bab", "$1"), "b$1b");
  EXPECT_EQ(TextPattern::Compile({" ", false})->ReplaceAll(" a  b", "▁"), "▁a▁▁b");
}

TEST(TextPattern, TellsWhatIsWrongWithAPattern) {
  const auto status = TextPattern::Compile({"a(b", true}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("missing closing parenthesis at byte 3"));
}

TEST(OnigurumaToPcre2, LeavesEscapesAndClassMembersAlone) {
  for (const std::string_view pattern : {R"(\\s[\\s]\[\])", R"([]\p{L}[:alpha:]]x)", R"([^]a]+)", R"(a\)"}) {
    EXPECT_EQ(OnigurumaToPcre2(pattern).value(), pattern);
  }
}

TEST(OnigurumaToPcre2, RefusesClassesThatTheTwoReadDifferently) {
  for (const std::string_view pattern : {"[a[b]]", "[a&&b]"}) {
    EXPECT_EQ(OnigurumaToPcre2(pattern).status().code(), absl::StatusCode::kUnimplemented) << pattern;
  }
}

}  // namespace
}  // namespace mechinterp::engine
