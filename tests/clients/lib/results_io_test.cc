#include "clients/lib/results_io.h"

#include <filesystem>

#include "clients/lib/files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/results.pb.h"
#include "nlohmann/json.hpp"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;

TEST(ResultsIo, WritesFieldNamesOfTheProtosAndZeros) {
  const testing::TestFolder folder;
  v1::BaselineResults results;
  results.mutable_harmful()->set_rate(0.5);
  results.add_responses()->set_pair_id("p");
  const std::string path = ResultsPath(folder.File("out"), v1::EXPERIMENT_KIND_BASELINE);
  ASSERT_THAT(WriteResults(path, results), IsOk());
  const auto json = nlohmann::json::parse(testing::TestFolder::Read(path));
  EXPECT_EQ(json["responses"][0]["pair_id"], "p");
  EXPECT_EQ(json["responses"][0]["refused_at_start"], false);
  EXPECT_EQ(json["harmful"]["success_count"], 0);

  v1::BaselineResults read;
  ASSERT_THAT(ReadResults(path, &read), IsOk());
  EXPECT_EQ(read.harmful().rate(), 0.5);
}

// A terminal shows the message, and a status carries it.
TEST(ResultsIo, RefusalsArePrintableWhateverIsInTheFile) {
  const testing::TestFolder folder;
  for (const std::string value : {"\x1b[2J", "[\"\xff\"]"}) {
    const std::string path = folder.Write("results.json", "{\"pair_ids\": " + value + "}");
    v1::PatchingResults results;
    const absl::Status status = ReadResults(path, &results);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("results.json")));
    for (const char c : status.message()) {
      EXPECT_TRUE(c == '\n' || (c >= ' ' && c < 0x7f)) << static_cast<int>(c);
    }
  }
}

TEST(ResultsIo, LeavesNothingBesideTheFile) {
  const testing::TestFolder folder;
  const std::string path = folder.File("only.json");
  ASSERT_THAT(CheckWritable(path), IsOk());
  ASSERT_THAT(WriteResults(path, v1::BaselineResults()), IsOk());
  ASSERT_THAT(WriteResults(path, v1::BaselineResults()), IsOk());
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.File(""))) ++count;
  EXPECT_EQ(count, 1);
}

TEST(ResultsIo, NamesTheFileThatIsNotAResult) {
  const testing::TestFolder folder;
  v1::BaselineResults results;
  const absl::Status status = ReadResults(folder.Write("bad.json", R"({"harmful": 3})"), &results);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("bad.json"));
}

TEST(CheckWritable, MakesFoldersAndLeavesTheFileAlone) {
  const testing::TestFolder folder;
  EXPECT_THAT(CheckWritable(folder.File("a/b/c.json")), IsOk());
  EXPECT_TRUE(std::filesystem::is_directory(folder.File("a/b")));
  EXPECT_FALSE(std::filesystem::exists(folder.File("a/b/c.json")));
  const std::string path = folder.Write("old.json", "old");
  EXPECT_THAT(CheckWritable(path), IsOk());
  EXPECT_EQ(testing::TestFolder::Read(path), "old");
}

TEST(CheckWritable, NoticesWhatCannotBeWritten) {
  const testing::TestFolder folder;
  folder.Write("file", "");
  std::filesystem::create_directories(folder.File("folder"));
  for (const char* name : {"file/results.json", "folder"}) {
    const absl::Status status = CheckWritable(folder.File(name));
    EXPECT_FALSE(status.ok()) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(JournalPath, LiesHiddenBesideTheResults) {
  EXPECT_EQ(JournalPath("outputs", v1::EXPERIMENT_KIND_PATCHING),
            "outputs/results/.02_patching.journal.jsonl");
}

}  // namespace
}  // namespace mechinterp
