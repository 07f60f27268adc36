// Files that anyone may have made, and the JSON in them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "services/common/json_file.h"
#include "services/common/text_file.h"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TestFolder;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string JsonError(const std::string& text) {
  const auto parsed = ParseJson(text, "a.json");
  EXPECT_EQ(parsed.status().code(), kInvalid) << text.substr(0, 80);
  return std::string(parsed.status().message());
}

TEST(ReadTextFile, ReadsAWholeFileUpToItsLimit) {
  const TestFolder folder;
  const std::string text = std::string(100'000, 'a') + std::string(1, '\0') + "\xff";
  const std::string path = folder.Write("text", text);
  EXPECT_THAT(ReadTextFile(path), IsOkAndHolds(text));
  EXPECT_THAT(ReadTextFile(path, text.size()), IsOkAndHolds(text));
  EXPECT_THAT(ReadTextFile(path, text.size() - 1),
              StatusIs(kInvalid, HasSubstr(path + ": 100002 bytes long; at most 100001 can be right")));
  EXPECT_THAT(ReadTextFile(folder.Write("empty", "")), IsOkAndHolds(""));
}

TEST(ReadTextFile, WaitsForNoPipe) {
  const TestFolder folder;
  ASSERT_EQ(mkfifo(folder.File("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadTextFile(folder.File("pipe")), StatusIs(kInvalid, HasSubstr("pipe: not a regular file")));
  EXPECT_THAT(ReadJsonFile(folder.File("pipe")), StatusIs(kInvalid, HasSubstr("pipe: not a regular file")));
}

TEST(ReadTextFile, NamesWhatCannotBeRead) {
  const TestFolder folder;
  EXPECT_THAT(ReadTextFile(folder.File("none")),
              StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("none"), HasSubstr("No such file"))));
  EXPECT_THAT(ReadTextFile(folder.File(".")), StatusIs(kInvalid, HasSubstr("not a regular file")));
}

// The size that the system states is 0, and what it gives while it is read has no end.
TEST(ReadTextFile, StopsAtItsLimitWhateverTheFileSaysOfItself) {
  if (!std::filesystem::exists("/proc/self/maps")) GTEST_SKIP() << "no /proc here";
  EXPECT_THAT(ReadTextFile("/proc/self/maps", 100), StatusIs(kInvalid, HasSubstr("at most 100")));
}

TEST(WriteTextFileAtomically, FollowsLinksAndReplacesNothingButFiles) {
  const TestFolder folder;
  const std::string file = folder.Write("file", "old"), link = folder.File("link");
  std::filesystem::create_symlink("file", link);
  EXPECT_THAT(WriteTextFileAtomically(link, "new"), IsOk());
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_THAT(ReadTextFile(file), IsOkAndHolds("new"));
  // Also where there is nothing yet.
  std::filesystem::create_symlink("later", folder.File("dangling"));
  EXPECT_THAT(WriteTextFileAtomically(folder.File("dangling"), "x"), IsOk());
  EXPECT_THAT(ReadTextFile(folder.File("later")), IsOkAndHolds("x"));

  ASSERT_EQ(mkfifo(folder.File("pipe").c_str(), 0600), 0);
  EXPECT_THAT(WriteTextFileAtomically(folder.File("pipe"), "x"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("pipe: it is no regular file")));
  EXPECT_TRUE(std::filesystem::is_fifo(folder.File("pipe")));
  std::filesystem::create_symlink("loop", folder.File("loop"));
  EXPECT_FALSE(WriteTextFileAtomically(folder.File("loop"), "x").ok());
}

TEST(FileExists, TellsOfALinkThatLeadsNowhere) {
  const TestFolder folder;
  EXPECT_THAT(FileExists(folder.Write("file", "")), IsOkAndHolds(true));
  EXPECT_THAT(FileExists(folder.File("none")), IsOkAndHolds(false));
  std::filesystem::create_symlink("none", folder.File("link"));
  EXPECT_THAT(FileExists(folder.File("link")), StatusIs(absl::StatusCode::kNotFound, HasSubstr("nowhere")));
}

TEST(DescribePlaceholder, KnowsWhatLiesInThePlaceOfADownload) {
  EXPECT_THAT(
      std::string(DescribePlaceholder("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")),
      HasSubstr("a Git LFS pointer"));
  for (const char* page : {"<!DOCTYPE html><html>", "\n <!doctype HTML>", "<html lang=\"en\">"}) {
    EXPECT_THAT(std::string(DescribePlaceholder(page)), HasSubstr("an HTML page")) << page;
  }
  for (const char* other : {"", "{}", "version 2", "<xml>", "{\"a\": \"<html>\"}"}) {
    EXPECT_TRUE(DescribePlaceholder(other).empty()) << other;
  }
}

TEST(ParseJson, TellsThePlaceOfWhatPythonWrites) {
  EXPECT_EQ(
      JsonError("{\n  \"a\": NaN}"),
      "a.json: not valid JSON at line 2, column 8: NaN and Infinity, which Python writes, are no numbers "
      "of JSON");
  EXPECT_THAT(JsonError("[Infinity]"), HasSubstr("line 1, column 2: NaN and Infinity"));
  EXPECT_THAT(JsonError("[-Infinity]"), HasSubstr("line 1, column 3: NaN and Infinity"));
}

TEST(ParseJson, TellsThePlaceOfATrailingComma) {
  EXPECT_THAT(JsonError("{\"a\": 1,\n \"b\": 2,\n}"),
              EndsWith("line 3, column 1: a comma with nothing after it"));
  EXPECT_THAT(JsonError("[1, ]"), EndsWith("line 1, column 5: a comma with nothing after it"));
  EXPECT_THAT(JsonError("[]]"), AllOf(HasSubstr("line 1, column 3"), Not(HasSubstr("comma"))));
}

TEST(ParseJson, TellsThePlaceOfEveryOtherFault) {
  EXPECT_EQ(JsonError("{"), "a.json: not valid JSON at line 1, column 2");
  EXPECT_EQ(JsonError(""), "a.json: not valid JSON at line 1, column 1");
  EXPECT_THAT(JsonError("{\"a\":\n \"\xff\"}"), HasSubstr("line 2"));
  EXPECT_THAT(JsonError("[1,\n1e999]"), HasSubstr("line 2"));  // past what a double holds
}

TEST(ParseJson, TellsWhatLiesInTheFilesPlace) {
  EXPECT_THAT(JsonError("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n"),
              HasSubstr("a.json is a Git LFS pointer"));
  EXPECT_THAT(JsonError("<!doctype html>\n"), HasSubstr("a.json is an HTML page"));
}

TEST(ParseJson, HoldsTheDepthThatItIsTold) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_THAT(ParseJson(nested(32), "a.json"), IsOk());
  EXPECT_EQ(JsonError(nested(33)), "a.json: nested deeper than 32 levels, at line 1, column 33");
  EXPECT_THAT(ParseJson(nested(33), "a.json", 33), IsOk());
  EXPECT_THAT(
      ParseJson("[" + std::string(999, ' ') + R"("[[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[")" + "]", "a.json"),
      IsOk());
  std::string wide = "[";
  for (int i = 0; i < 100; ++i) wide += "{\"a\":[]},";
  EXPECT_THAT(ParseJson(wide + "1]", "a.json"), IsOk());
  // Neither the parser's stack nor, malformed, its memory.
  EXPECT_THAT(JsonError(std::string(5'000'000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(JsonError("{\"a\":" + nested(100'000) + "}"), HasSubstr("nested deeper"));
}

TEST(ParseJsonObject, WantsAnObject) {
  EXPECT_THAT(ParseJsonObject("{}", "a.json"), IsOk());
  EXPECT_THAT(ParseJsonObject("[]", "a.json"), StatusIs(kInvalid, "a.json: not a JSON object"));
}

TEST(ReadJsonFile, HoldsItsLimits) {
  const TestFolder folder;
  const std::string path = folder.Write("a.json", "[[1]]   ");
  const auto read = ReadJsonFile(path);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->dump(), "[[1]]");
  EXPECT_THAT(ReadJsonFile(path, {.max_bytes = 7}), StatusIs(kInvalid, HasSubstr("at most 7")));
  EXPECT_THAT(ReadJsonFile(path, {.max_depth = 1}), StatusIs(kInvalid, HasSubstr("deeper than 1")));
  EXPECT_THAT(ReadOrderedJsonFile(path, {.max_depth = 1}), StatusIs(kInvalid, HasSubstr("deeper than 1")));
}

TEST(Excerpt, ShowsALineAtMost) {
  EXPECT_EQ(Excerpt(nlohmann::json{{"a", 1}}), R"({"a":1})");
  EXPECT_EQ(Excerpt(std::string(22'000'000, 'x')).size(), 103u);
  EXPECT_EQ(Excerpt("\u00e9"), "\"\\u00e9\"");
}

}  // namespace
}  // namespace mechinterp
