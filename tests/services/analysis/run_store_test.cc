#include "services/analysis/run_store.h"

#include <string>
#include <thread>
#include <vector>

#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/status.h"
#include "services/common/text_file.h"
#include "tests/services/analysis/studies.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class RunStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<RunStore> Open() {
    auto store = RunStore::Open(path_);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  ScratchFolder folder_;
  std::string path_ = folder_.File("deeper/runs.sqlite");
};

TEST_F(RunStoreTest, KeepsRunsOverRestarts) {
  ASSERT_TRUE(Open()->Import("a", SmallStudy()).ok());
  const auto run = Open()->Get("a");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->study().SerializeAsString(), SmallStudy().SerializeAsString());
  EXPECT_EQ(run->description().run_id(), "a");
  EXPECT_EQ(run->description().model_name(), "small");
  EXPECT_TRUE(run->description().has_baseline());
  EXPECT_TRUE(run->description().has_patching());
  EXPECT_FALSE(run->description().has_ablation());
  EXPECT_GT(run->description().update_time().seconds(), 1'600'000'000);
}

TEST_F(RunStoreTest, AddsPiecesAndReplacesThoseGivenAgain) {
  const auto store = Open();
  v1::Study first;
  first.mutable_baseline()->mutable_provenance()->mutable_model()->set_name("m");
  first.mutable_baseline()->mutable_harmful()->set_total_count(1);
  ASSERT_TRUE(store->Import("a", first).ok());
  v1::Study second;
  second.mutable_ablation()->set_patching_results_path("p");
  ASSERT_TRUE(store->Import("a", second).ok());
  v1::Study third;
  third.mutable_baseline()->mutable_harmful()->set_total_count(2);
  ASSERT_TRUE(store->Import("a", third).ok());

  const auto run = store->Get("a");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->study().baseline().harmful().total_count(), 2);
  EXPECT_EQ(run->study().ablation().patching_results_path(), "p");
  EXPECT_FALSE(run->study().has_patching());
  EXPECT_EQ(run->description().model_name(), "m");  // the newer piece told none
}

TEST_F(RunStoreTest, ListsTheLatestFirst) {
  const auto store = Open();
  for (const char* id : {"a", "b", "c", "a"}) ASSERT_TRUE(store->Import(id, SmallStudy()).ok());
  const auto runs = store->List();
  ASSERT_TRUE(runs.ok()) << runs.status();
  ASSERT_EQ(runs->size(), 3);
  EXPECT_EQ((*runs)[0].run_id(), "a");
  EXPECT_EQ((*runs)[1].run_id(), "c");
  EXPECT_EQ((*runs)[2].run_id(), "b");
}

TEST_F(RunStoreTest, TellsRunsThatAreNotThere) {
  const auto store = Open();
  EXPECT_EQ(store->Get("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorReason(store->Get("a").status()), "RUN_NOT_FOUND");
  EXPECT_EQ(store->Delete("a").code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(store->Import("a", SmallStudy()).ok());
  EXPECT_TRUE(store->Delete("a").ok());
  EXPECT_EQ(store->Get("a").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RunStoreTest, TakesIdsAsTheyAre) {
  const auto store = Open();
  const std::string id = "'; DROP TABLE runs; --";
  ASSERT_TRUE(store->Import(id, SmallStudy()).ok());
  EXPECT_TRUE(store->Get(id).ok());
}

TEST_F(RunStoreTest, ExplainsFilesItCannotUse) {
  // A folder, a place below a file, and a file that is no database.
  EXPECT_THAT(std::string(RunStore::Open(folder_.File("")).status().message()), HasSubstr("cannot open"));
  ASSERT_TRUE(WriteTextFileAtomically(folder_.File("text"), std::string(5000, 'x')).ok());
  const auto below = RunStore::Open(folder_.File("text/runs.sqlite"));
  EXPECT_THAT(std::string(below.status().message()),
              AllOf(HasSubstr("text/runs.sqlite"), HasSubstr("Not a directory")));
  const auto text = RunStore::Open(folder_.File("text"));
  EXPECT_EQ(text.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(text.status().message()), AllOf(HasSubstr("text"), HasSubstr("not a database")));
}

TEST_F(RunStoreTest, RefusesFilesOfNewerVersions) {
  Open();
  {
    SQLite::Database database(path_, SQLite::OPEN_READWRITE);
    database.exec("PRAGMA user_version = 99");
  }
  const auto store = RunStore::Open(path_);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("newer version"));
}

TEST_F(RunStoreTest, ServesManyThreadsAndASecondProcess) {
  const auto store = Open();
  const auto other = Open();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      RunStore& mine = i % 2 == 0 ? *store : *other;
      for (int j = 0; j < 10; ++j) {
        EXPECT_TRUE(mine.Import(absl::StrCat("run-", i), SmallStudy()).ok());
        EXPECT_TRUE(mine.Get(absl::StrCat("run-", i)).ok());
        EXPECT_TRUE(mine.List().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store->List()->size(), 4);
}

}  // namespace
}  // namespace mechinterp
