#include "services/analysis/run_store.h"

#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/experiments.h"
#include "services/common/status.h"
#include "services/common/text_file.h"
#include "tests/services/analysis/studies.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RunStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<RunStore> Open() {
    auto store = RunStore::Open(path_);
    EXPECT_THAT(store, IsOk());
    return store.ok() ? *std::move(store) : nullptr;
  }

  ScratchFolder folder_;
  std::string path_ = folder_.File("deeper/runs.sqlite");
};

TEST_F(RunStoreTest, KeepsRunsOverRestarts) {
  ASSERT_THAT(Open()->Import("a", SmallStudy()), IsOk());
  const auto run = Open()->Get("a");
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->study().SerializeAsString(), SmallStudy().SerializeAsString());
  EXPECT_EQ(run->description().run_id(), "a");
  EXPECT_EQ(run->description().model_name(), "small");
  EXPECT_THAT(
      run->description().experiments(),
      ElementsAre(v1::EXPERIMENT_KIND_BASELINE, v1::EXPERIMENT_KIND_PATCHING, v1::EXPERIMENT_KIND_CIRCUIT));
  EXPECT_GT(run->description().update_time().seconds(), 1'600'000'000);
}

TEST_F(RunStoreTest, AddsPiecesAndReplacesThoseGivenAgain) {
  const auto store = Open();
  v1::Study first;
  first.mutable_baseline()->mutable_provenance()->mutable_model()->set_name("m");
  first.mutable_baseline()->mutable_harmful()->set_total_count(1);
  ASSERT_THAT(store->Import("a", first), IsOk());
  v1::Study second;
  second.mutable_ablation()->set_patching_results_path("p");
  ASSERT_THAT(store->Import("a", second), IsOk());
  v1::Study third;
  third.mutable_baseline()->mutable_harmful()->set_total_count(2);
  ASSERT_THAT(store->Import("a", third), IsOk());

  const auto run = store->Get("a");
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->study().baseline().harmful().total_count(), 2);
  EXPECT_EQ(run->study().ablation().patching_results_path(), "p");
  EXPECT_FALSE(run->study().has_patching());
  EXPECT_EQ(run->description().model_name(), "m");  // the newer piece told none
}

TEST_F(RunStoreTest, KeepsEveryExperimentOfAStudy) {
  const auto store = Open();
  v1::Study study;
  for (const ExperimentInfo& experiment : Experiments()) MutableResultsOf(study, experiment.kind);
  study.mutable_compare()->mutable_other_model()->set_name("quantized");
  ASSERT_THAT(store->Import("a", study), IsOk());
  const auto run = store->Get("a");
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->study().SerializeAsString(), study.SerializeAsString());
  EXPECT_EQ(store->List(10)->front().experiments_size(), static_cast<int>(Experiments().size()));
  // A run of the same name begins empty.
  ASSERT_THAT(store->Delete("a"), IsOk());
  ASSERT_THAT(store->Import("a", FromText<v1::Study>("compare {}")), IsOk());
  EXPECT_THAT(store->Get("a")->description().experiments(), ElementsAre(v1::EXPERIMENT_KIND_COMPARE));
}

void BindMessage(SQLite::Statement& statement, int index, const google::protobuf::Message& message) {
  const std::string bytes = message.SerializeAsString();
  statement.bind(index, bytes.data(), static_cast<int>(bytes.size()));
}

TEST_F(RunStoreTest, BringsFilesOfSchema1UpToDate) {
  {
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path());
    SQLite::Database database(path_, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    database.exec(R"(
      CREATE TABLE runs (
        run_id             TEXT PRIMARY KEY,
        update_time_micros INTEGER NOT NULL,
        model_name         TEXT NOT NULL,
        baseline           BLOB,
        patching           BLOB,
        ablation           BLOB
      ))");
    database.exec("PRAGMA user_version = 1");
    SQLite::Statement whole(database,
                            "INSERT INTO runs VALUES ('whole', 1700000000000000, 'small', ?1, ?2, NULL)");
    BindMessage(whole, 1, SmallStudy().baseline());
    BindMessage(whole, 2, SmallStudy().patching());
    whole.exec();
    SQLite::Statement part(database,
                           "INSERT INTO runs VALUES ('part', 1700000000000001, '', NULL, NULL, ?1)");
    BindMessage(part, 1, FromText<v1::AblationResults>("patching_results_path: 'p'"));
    part.exec();
  }
  v1::Study stored = SmallStudy();
  stored.clear_circuit();
  for (int i = 0; i < 2; ++i) {  // migrated, then opened again
    const auto store = Open();
    const auto whole = store->Get("whole");
    ASSERT_THAT(whole, IsOk());
    EXPECT_EQ(whole->study().SerializeAsString(), stored.SerializeAsString());
    EXPECT_EQ(whole->description().update_time().seconds(), 1'700'000'000);
    EXPECT_EQ(store->Get("part")->study().ablation().patching_results_path(), "p");
    ASSERT_EQ(store->List(10)->size(), 2);
    EXPECT_EQ(store->List(10)->front().run_id(), "part");
  }
  EXPECT_THAT(Open()->Import("whole", FromText<v1::Study>("compare {}")), IsOk());
  EXPECT_THAT(
      Open()->Get("whole")->description().experiments(),
      ElementsAre(v1::EXPERIMENT_KIND_BASELINE, v1::EXPERIMENT_KIND_PATCHING, v1::EXPERIMENT_KIND_COMPARE));
}

TEST_F(RunStoreTest, PassesOverExperimentsThatItDoesNotKnow) {
  ASSERT_THAT(Open()->Import("a", SmallStudy()), IsOk());
  SQLite::Database(path_, SQLite::OPEN_READWRITE).exec("INSERT INTO results VALUES ('a', 999, x'00')");
  EXPECT_EQ(Open()->Get("a")->description().experiments_size(), 3);
}

TEST_F(RunStoreTest, ListsTheLatestFirst) {
  const auto store = Open();
  for (const char* id : {"a", "b", "c", "a"}) ASSERT_THAT(store->Import(id, SmallStudy()), IsOk());
  const auto runs = store->List(10);
  ASSERT_THAT(runs, IsOk());
  ASSERT_EQ(runs->size(), 3);
  EXPECT_EQ((*runs)[0].run_id(), "a");
  EXPECT_EQ((*runs)[1].run_id(), "c");
  EXPECT_EQ((*runs)[2].run_id(), "b");
}

TEST_F(RunStoreTest, ListsWhatComesAfterARun) {
  const auto store = Open();
  for (const char* id : {"a", "b", "c"}) ASSERT_THAT(store->Import(id, SmallStudy()), IsOk());
  const auto first = store->List(2);
  ASSERT_EQ(first->size(), 2);
  EXPECT_EQ((*first)[1].run_id(), "b");
  // That it is gone meanwhile takes none away.
  ASSERT_THAT(store->Delete("b"), IsOk());
  const auto rest = store->List(2, PositionOf((*first)[1]));
  ASSERT_EQ(rest->size(), 1);
  EXPECT_EQ(rest->front().run_id(), "a");
  EXPECT_TRUE(store->List(2, PositionOf(rest->front()))->empty());
}

TEST_F(RunStoreTest, ListsRunsOfOneTimeByTheirIds) {
  {
    const auto store = Open();
    for (const char* id : {"b", "d", "a", "c"}) ASSERT_THAT(store->Import(id, v1::Study()), IsOk());
  }
  SQLite::Database(path_, SQLite::OPEN_READWRITE).exec("UPDATE runs SET update_time_micros = 7");
  const auto store = Open();
  std::string ids;
  std::optional<PagePosition> last;
  for (auto page = store->List(1); !page->empty(); page = store->List(1, last)) {
    ids += page->front().run_id();
    last = PositionOf(page->front());
  }
  EXPECT_EQ(ids, "dcba");
}

TEST_F(RunStoreTest, DescribesARun) {
  const auto store = Open();
  ASSERT_THAT(store->Import("a", SmallStudy()), IsOk());
  const auto run = store->Describe("a");
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->SerializeAsString(), store->Get("a")->description().SerializeAsString());
  EXPECT_EQ(store->Describe("b").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RunStoreTest, TellsRunsThatAreNotThere) {
  const auto store = Open();
  EXPECT_EQ(store->Get("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorReason(store->Get("a").status()), "RUN_NOT_FOUND");
  EXPECT_EQ(store->Delete("a").code(), absl::StatusCode::kNotFound);
  ASSERT_THAT(store->Import("a", SmallStudy()), IsOk());
  EXPECT_THAT(store->Delete("a"), IsOk());
  EXPECT_EQ(store->Get("a").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RunStoreTest, TakesIdsAsTheyAre) {
  const auto store = Open();
  const std::string id = "'; DROP TABLE runs; --";
  ASSERT_THAT(store->Import(id, SmallStudy()), IsOk());
  EXPECT_THAT(store->Get(id), IsOk());
}

TEST_F(RunStoreTest, ExplainsFilesItCannotUse) {
  // A folder, a place below a file, and a file that is no database.
  EXPECT_THAT(std::string(RunStore::Open(folder_.File("")).status().message()), HasSubstr("cannot open"));
  ASSERT_THAT(WriteTextFileAtomically(folder_.File("text"), std::string(5000, 'x')), IsOk());
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
        EXPECT_THAT(mine.Import(absl::StrCat("run-", i), SmallStudy()), IsOk());
        EXPECT_THAT(mine.Get(absl::StrCat("run-", i)), IsOk());
        EXPECT_THAT(mine.List(10), IsOk());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store->List(10)->size(), 4);
}

}  // namespace
}  // namespace mechinterp
