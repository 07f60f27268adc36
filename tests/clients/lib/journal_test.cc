#include "clients/lib/journal.h"

#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/results.pb.h"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;

const Fingerprint kFingerprint = {{"model", "toy"}, {"--seed", "0"}};

v1::Rate RateOf(double rate) {
  v1::Rate message;
  message.set_rate(rate);
  return message;
}

std::unique_ptr<Journal> OpenOrDie(const std::string& path, const Fingerprint& fingerprint = kFingerprint,
                                   bool restart = false) {
  auto journal = Journal::Open(path, fingerprint, restart);
  EXPECT_THAT(journal, IsOk());
  return *std::move(journal);
}

TEST(Journal, GoesOnWithTheSameFingerprint) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  {
    const auto journal = OpenOrDie(path);
    EXPECT_EQ(journal->resumed_part_count(), 0);
    ASSERT_THAT(journal->Record("a \"quoted\" key", RateOf(0.1)), IsOk());
    ASSERT_THAT(journal->Record("b", RateOf(1.0 / 3)), IsOk());
  }
  const auto journal = OpenOrDie(path);
  EXPECT_EQ(journal->resumed_part_count(), 2);
  EXPECT_EQ(journal->discard_reason(), "");
  v1::Rate found;
  ASSERT_TRUE(journal->Find("a \"quoted\" key", &found));
  EXPECT_EQ(found.rate(), 0.1);
  ASSERT_TRUE(journal->Find("b", &found));
  EXPECT_EQ(found.rate(), 1.0 / 3);  // To the last bit.
  EXPECT_FALSE(journal->Find("c", &found));
}

// What a run has found or recorded by then stays; all else of the file is doubted.
TEST(Journal, IsSetAsideWhenAPartIsNoneOfTheExperiments) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  {
    const auto journal = OpenOrDie(path);
    for (const char* key : {"good", "bad", "later"}) ASSERT_THAT(journal->Record(key, RateOf(0.5)), IsOk());
  }
  const std::string whole = testing::TestFolder::Read(path);
  v1::Rate found;
  {
    const auto journal = OpenOrDie(path);
    EXPECT_TRUE(journal->Find("good", &found));
    EXPECT_TRUE(journal->Find("bad", &found));
    ASSERT_THAT(journal->Record("new", RateOf(1)), IsOk());
    ASSERT_THAT(journal->Distrust({"bad"}, "bad is"), IsOk());
    EXPECT_EQ(journal->discard_reason(), "it is damaged: bad is");
    EXPECT_EQ(journal->set_aside_path(), path + ".damaged");
    EXPECT_FALSE(journal->Find("bad", &found));
    EXPECT_FALSE(journal->Find("later", &found));
    EXPECT_TRUE(journal->Find("good", &found));
    EXPECT_THAT(Journal::Open(path, kFingerprint, false), StatusIs(absl::StatusCode::kFailedPrecondition));
    ASSERT_THAT(journal->Record("bad", RateOf(0.25)), IsOk());
  }
  EXPECT_THAT(testing::TestFolder::Read(path + ".damaged"), ::testing::StartsWith(whole));
  const auto journal = OpenOrDie(path);
  EXPECT_EQ(journal->resumed_part_count(), 3);
  ASSERT_TRUE(journal->Find("bad", &found));
  EXPECT_EQ(found.rate(), 0.25);
}

TEST(Journal, DropsAHalfWrittenLine) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  ASSERT_THAT(OpenOrDie(path)->Record("a", RateOf(1)), IsOk());
  const std::string whole = testing::TestFolder::Read(path);
  folder.Write("journal.jsonl", whole + R"({"key":"b","val)");
  {
    const auto journal = OpenOrDie(path);
    EXPECT_EQ(journal->resumed_part_count(), 1);
    ASSERT_THAT(journal->Record("c", RateOf(2)), IsOk());
  }
  EXPECT_EQ(OpenOrDie(path)->resumed_part_count(), 2);
}

TEST(Journal, SetsOtherArgumentsPartsAsideAndSaysWhy) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  ASSERT_THAT(OpenOrDie(path)->Record("a", RateOf(1)), IsOk());
  {
    const auto journal = OpenOrDie(path, {{"model", "toy"}, {"--seed", "7"}});
    EXPECT_EQ(journal->resumed_part_count(), 0);
    EXPECT_EQ(journal->discard_reason(), "--seed was 0, now 7");
  }
  EXPECT_THAT(testing::TestFolder::Read(path + ".old"), HasSubstr("\"a\""));
}

TEST(Journal, RestartBeginsAnew) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  ASSERT_THAT(OpenOrDie(path)->Record("a", RateOf(1)), IsOk());
  const auto journal = OpenOrDie(path, kFingerprint, /*restart=*/true);
  v1::Rate found;
  EXPECT_FALSE(journal->Find("a", &found));
  EXPECT_EQ(journal->discard_reason(), "--restart was given");
}

// Each with a line that no journal has; what is damaged stands in no later run's way.
TEST(Journal, SetsADamagedOneAsideAndBeginsAnew) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  const std::string begin = R"({"fingerprint":{"--seed":"0","model":"toy"}})"
                            "\n";
  const std::string good = R"({"key":"a","value":{}})"
                           "\n";
  const std::string deep = std::string(100'000, '[');
  for (const auto& [content, problem] : std::vector<std::pair<std::string, std::string>>{
           {"7\n", "line 1: not a JSON object"},
           {"{\"fingerprint\":7}\n", "line 1: fingerprint must be an object"},
           {"{\"fingerprint\":{\"--seed\":0}}\n", "line 1: fingerprint must be an object of texts"},
           {good, "line 1: fingerprint must be an object"},
           {begin + good + "{\"key\":7,\"value\":{}}\n" + good, "line 3: key must be a text"},
           {begin + "{\"key\":\"a\",\"value\":[7]}\n", "line 2: value must be an object"},
           {begin + "{\"value\":{}}\n", "line 2: key must be a text"},
           {begin + good + "{\"key\":\"b\",\"val\n", "line 3: not valid JSON"},
           {begin + std::string(50, '\0') + "\n", "line 2: not valid JSON"},
           {begin + "{\"key\":\"a\",\"value\":{\"x\":" + deep + "\n", "line 2: nested deeper than"},
           {begin + "{\"key\":\"a\",\"value\":{\"x\":" + deep + std::string(100'000, ']') + "}}\n",
            "line 2: nested deeper than"}}) {
    for (const bool restart : {false, true}) {
      folder.Write("journal.jsonl", content);
      {
        const auto journal = OpenOrDie(path, kFingerprint, restart);
        EXPECT_EQ(journal->resumed_part_count(), 0);
        EXPECT_THAT(journal->discard_reason(), HasSubstr("it is damaged: " + problem));
        EXPECT_EQ(journal->set_aside_path(), path + ".damaged");
        EXPECT_EQ(testing::TestFolder::Read(path + ".damaged"), content);
        ASSERT_THAT(journal->Record("new", RateOf(1)), IsOk());
      }
      const auto journal = OpenOrDie(path);
      EXPECT_EQ(journal->resumed_part_count(), 1);
      EXPECT_EQ(journal->discard_reason(), "");
    }
  }
}

TEST(Journal, SetsAPipeOfItsNameAside) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const auto journal = OpenOrDie(path);
  EXPECT_THAT(journal->discard_reason(), HasSubstr("not a regular file"));
  EXPECT_TRUE(std::filesystem::is_fifo(path + ".damaged"));
  EXPECT_TRUE(std::filesystem::is_regular_file(path));
}

TEST(Journal, KeepsASecondRunOut) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  const auto first = OpenOrDie(path);
  const auto second = Journal::Open(path, kFingerprint, false);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another run"));
}

TEST(Journal, IsGoneAfterRemove) {
  const testing::TestFolder folder;
  const std::string path = folder.File("journal.jsonl");
  ASSERT_THAT(OpenOrDie(path)->Remove(), IsOk());
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Journal, NamesAFileItCannotOpen) {
  const auto journal = Journal::Open("/nowhere/journal.jsonl", kFingerprint, false);
  EXPECT_TRUE(absl::IsNotFound(journal.status()));
  EXPECT_THAT(std::string(journal.status().message()), HasSubstr("/nowhere/journal.jsonl"));
}

}  // namespace
}  // namespace mechinterp
