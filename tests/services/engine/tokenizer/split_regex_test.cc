#include "services/engine/tokenizer/split_regex.h"

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

std::vector<std::string_view> Split(std::string_view pattern, std::string_view text) {
  const absl::StatusOr<SplitRegex> regex = SplitRegex::Compile(pattern);
  EXPECT_THAT(regex, IsOk());
  std::vector<std::string_view> pieces;
  if (regex.ok()) regex->Split(text, &pieces);
  return pieces;
}

TEST(SplitRegex, KeepsMatchesAndWhatLiesBetweenThem) {
  EXPECT_THAT(Split(R"(\d)", "ab12c"), ElementsAre("ab", "1", "2", "c"));
  EXPECT_THAT(Split(R"(\d)", "abc"), ElementsAre("abc"));
  EXPECT_THAT(Split(R"(\d)", ""), IsEmpty());
}

TEST(SplitRegex, CutsAtEmptyMatchesWithoutMakingEmptyPieces) {
  EXPECT_THAT(Split(R"((?=\d))", "ab1é2"), ElementsAre("ab", "1é", "2"));
  EXPECT_THAT(Split("", "aé"), ElementsAre("a", "é"));
}

TEST(SplitRegex, KnowsUnicodeClasses) {
  EXPECT_THAT(Split(R"(\p{L}+|\p{N}+)", "naïve٣४日本!"), ElementsAre("naïve", "٣४", "日本", "!"));
}

// Unicode's White_Space, which Oniguruma's \s is: with U+0085 and U+3000, and
// without U+180E and U+200B, the first of which PCRE2 would take.
TEST(SplitRegex, TakesForSpaceWhatUnicodeDoes) {
  EXPECT_THAT(Split(R"(\s+)", "a\u0085\u3000\x0B\u2028z"), ElementsAre("a", "\u0085\u3000\x0B\u2028", "z"));
  EXPECT_THAT(Split(R"(\s+)", "a\u180E\u200Bz"), ElementsAre("a\u180E\u200Bz"));
  EXPECT_THAT(Split(R"([^\s]+)", "a\u180E z"), ElementsAre("a\u180E", " ", "z"));
  EXPECT_THAT(Split(R"(\S+)", "a\u180E z"), ElementsAre("a\u180E", " ", "z"));
}

TEST(SplitRegex, SplitsLongRunsOfSpaces) {
  const std::string text = std::string(300000, ' ') + "x";
  const auto pieces = Split(R"( ?[^\s]+|\s*[\r\n]+|\s+(?!\S)|\s+)", text);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[1], " x");
}

TEST(SplitRegex, TellsWhatIsWrongWithAPattern) {
  const auto status = SplitRegex::Compile("a(b").status();
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
    EXPECT_EQ(OnigurumaToPcre2(pattern).status().code(), absl::StatusCode::kInvalidArgument) << pattern;
  }
}

}  // namespace
}  // namespace mechinterp::engine
