#include "services/analysis/run_store.h"

#include <sqlite3.h>

#include <chrono>
#include <utility>

#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "services/analysis/study.h"
#include "services/common/experiments.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

// PRAGMA user_version; raise it with every change of the tables, and migrate.
constexpr int kSchemaVersion = 2;
constexpr int kBusyTimeoutMs = 5000;

constexpr char kCreateRuns[] = R"(
  CREATE TABLE runs (
    run_id             TEXT PRIMARY KEY,
    update_time_micros INTEGER NOT NULL,
    model_name         TEXT NOT NULL
  ))";

constexpr char kCreateResults[] = R"(
  CREATE TABLE results (
    run_id     TEXT NOT NULL,
    experiment INTEGER NOT NULL,  -- mechinterp.v1.ExperimentKind
    message    BLOB NOT NULL,     -- the field of mechinterp.v1.Study with that number
    PRIMARY KEY (run_id, experiment)
  ))";

// Schema 1 had a column in `runs` for each of three experiments.
constexpr const char* kMigrateFromSchema1[] = {
    kCreateResults,
    "INSERT INTO results SELECT run_id, 1, baseline FROM runs WHERE baseline IS NOT NULL",
    "INSERT INTO results SELECT run_id, 2, patching FROM runs WHERE patching IS NOT NULL",
    "INSERT INTO results SELECT run_id, 3, ablation FROM runs WHERE ablation IS NOT NULL",
    "ALTER TABLE runs DROP COLUMN baseline",
    "ALTER TABLE runs DROP COLUMN patching",
    "ALTER TABLE runs DROP COLUMN ablation",
};

constexpr char kImportRun[] = R"(
  INSERT INTO runs (run_id, update_time_micros, model_name) VALUES (?1, ?2, ?3)
  ON CONFLICT (run_id) DO UPDATE SET
    update_time_micros = excluded.update_time_micros,
    model_name = CASE excluded.model_name WHEN '' THEN model_name ELSE excluded.model_name END)";

constexpr char kImportResults[] =
    "INSERT OR REPLACE INTO results (run_id, experiment, message) VALUES (?1, ?2, ?3)";

int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

absl::Status NoSuchRun(const std::string& run_id) {
  return ErrorWithReason(absl::StatusCode::kNotFound, absl::StrCat("there is no run \"", run_id, "\""),
                         "RUN_NOT_FOUND", {{"run_id", run_id}});
}

v1::RunDescription ReadDescription(SQLite::Statement& query) {
  v1::RunDescription description;
  description.set_run_id(query.getColumn(0).getString());
  *description.mutable_update_time() =
      google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(query.getColumn(1).getInt64());
  description.set_model_name(query.getColumn(2).getString());
  return description;
}

// Calls `take` with each experiment of the run, in rising order, and with the query, whose
// columns are the experiment and its message. Experiments that only a newer version
// knows are passed over.
template <typename Take>
absl::Status ForEachExperiment(SQLite::Database& database, const std::string& run_id, Take take) {
  SQLite::Statement query(database,
                          "SELECT experiment, message FROM results WHERE run_id = ?1 ORDER BY experiment");
  query.bind(1, run_id);
  while (query.executeStep()) {
    const int kind = query.getColumn(0).getInt();
    if (!IsExperiment(kind)) continue;
    ABSTRACT_RETURN_IF_ERROR(take(static_cast<v1::ExperimentKind>(kind), query));
  }
  return absl::OkStatus();
}

absl::Status AddExperiments(SQLite::Database& database, v1::RunDescription& description) {
  return ForEachExperiment(database, description.run_id(),
                           [&](v1::ExperimentKind kind, SQLite::Statement&) -> absl::Status {
                             description.add_experiments(kind);
                             return absl::OkStatus();
                           });
}

// With its experiments; NotFound when there is none.
absl::StatusOr<v1::RunDescription> FindRun(SQLite::Database& database, const std::string& run_id) {
  SQLite::Statement query(database,
                          "SELECT run_id, update_time_micros, model_name FROM runs WHERE run_id = ?1");
  query.bind(1, run_id);
  if (!query.executeStep()) return NoSuchRun(run_id);
  v1::RunDescription description = ReadDescription(query);
  ABSTRACT_RETURN_IF_ERROR(AddExperiments(database, description));
  return description;
}

// Makes the tables in a new file, brings those of older versions up to date, and
// refuses files that this version does not know.
absl::Status PrepareSchema(SQLite::Database& database) {
  // At once the only writer: two programs may open an old file at the same time.
  SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
  const int version = database.execAndGet("PRAGMA user_version").getInt();
  if (version > kSchemaVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("it was made by a newer version of this program (schema ", version, "; this one knows ",
                     kSchemaVersion, ")"));
  }
  if (version == kSchemaVersion) return absl::OkStatus();
  if (version == 0) {
    database.exec(kCreateRuns);
    database.exec(kCreateResults);
  } else {
    for (const char* statement : kMigrateFromSchema1) database.exec(statement);
  }
  database.exec(absl::StrCat("PRAGMA user_version = ", kSchemaVersion));
  transaction.commit();
  return absl::OkStatus();
}

// Runs `action`, whose SQLite exceptions become statuses that name the file.
template <typename Action>
auto Guarded(const std::string& path, Action action) -> decltype(action()) {
  try {
    return action();
  } catch (const SQLite::Exception& error) {
    return absl::InternalError(absl::StrCat("run database ", path, ": ", error.what()));
  }
}

}  // namespace

RunStore::RunStore(std::string path, std::unique_ptr<SQLite::Database> database)
    : path_(std::move(path)), database_(std::move(database)) {}

RunStore::~RunStore() = default;

absl::StatusOr<std::unique_ptr<RunStore>> RunStore::Open(const std::string& path) {
  const std::string context = absl::StrCat("cannot open the run database ", path);
  if (const absl::Status status = MakeParentFolder(path); !status.ok()) return WithContext(status, context);
  try {
    auto database = std::make_unique<SQLite::Database>(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE,
                                                       kBusyTimeoutMs);
    // SQLite opens a file that it may not write for reading, without a word.
    if (sqlite3_db_readonly(database->getHandle(), "main") == 1) {
      return absl::FailedPreconditionError(absl::StrCat(context, ": it cannot be written"));
    }
    if (const absl::Status status = PrepareSchema(*database); !status.ok())
      return WithContext(status, context);
    return std::unique_ptr<RunStore>(new RunStore(path, std::move(database)));
  } catch (const SQLite::Exception& error) {
    return absl::FailedPreconditionError(absl::StrCat(context, ": ", error.what()));
  }
}

absl::Status RunStore::Import(const std::string& run_id, const v1::Study& study) {
  const std::lock_guard lock(mutex_);
  return Guarded(path_, [&]() -> absl::Status {
    SQLite::Transaction transaction(*database_);
    SQLite::Statement run(*database_, kImportRun);
    run.bind(1, run_id);
    run.bind(2, static_cast<int64_t>(NowMicros()));
    run.bind(3, ModelName(study));
    run.exec();
    for (const ExperimentInfo& experiment : Experiments()) {
      const google::protobuf::Message* const results = ResultsOf(study, experiment.kind);
      if (results == nullptr) continue;
      const std::string bytes = results->SerializeAsString();
      SQLite::Statement statement(*database_, kImportResults);
      statement.bind(1, run_id);
      statement.bind(2, static_cast<int>(experiment.kind));
      statement.bind(3, bytes.data(), static_cast<int>(bytes.size()));
      statement.exec();
    }
    transaction.commit();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<v1::RunDescription>> RunStore::List(int max_count,
                                                               const std::optional<PagePosition>& last) {
  const std::lock_guard lock(mutex_);
  return Guarded(path_, [&]() -> absl::StatusOr<std::vector<v1::RunDescription>> {
    const SQLite::Transaction transaction(*database_);  // one state of both tables
    SQLite::Statement query(*database_,
                            absl::StrCat("SELECT run_id, update_time_micros, model_name FROM runs ",
                                         last ? "WHERE (update_time_micros, run_id) < (?2, ?3) " : "",
                                         "ORDER BY update_time_micros DESC, run_id DESC LIMIT ?1"));
    query.bind(1, max_count);
    if (last) {
      query.bind(2, last->order);
      query.bind(3, last->id);
    }
    std::vector<v1::RunDescription> runs;
    while (query.executeStep()) {
      runs.push_back(ReadDescription(query));
      ABSTRACT_RETURN_IF_ERROR(AddExperiments(*database_, runs.back()));
    }
    return runs;
  });
}

absl::StatusOr<v1::RunDescription> RunStore::Describe(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  return Guarded(path_, [&]() -> absl::StatusOr<v1::RunDescription> {
    const SQLite::Transaction transaction(*database_);  // one state of both tables
    return FindRun(*database_, run_id);
  });
}

absl::StatusOr<v1::GetRunResponse> RunStore::Get(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  return Guarded(path_, [&]() -> absl::StatusOr<v1::GetRunResponse> {
    const SQLite::Transaction transaction(*database_);  // one state of both tables
    v1::GetRunResponse run;
    ABSTRACT_ASSIGN_OR_RETURN(*run.mutable_description(), FindRun(*database_, run_id));
    const auto read = [&run](v1::ExperimentKind kind, SQLite::Statement& results) -> absl::Status {
      const SQLite::Column column = results.getColumn(1);
      google::protobuf::Message& message = MutableResultsOf(*run.mutable_study(), kind);
      if (message.ParseFromArray(column.getBlob(), column.getBytes())) return absl::OkStatus();
      return absl::DataLossError(absl::StrCat("the stored ", InfoOf(kind).name, " results are no ",
                                              std::string(message.GetTypeName())));
    };
    run.mutable_study();
    ABSTRACT_RETURN_IF_ERROR(ForEachExperiment(*database_, run_id, read));
    return run;
  });
}

absl::Status RunStore::Delete(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  return Guarded(path_, [&]() -> absl::Status {
    SQLite::Transaction transaction(*database_);
    SQLite::Statement run(*database_, "DELETE FROM runs WHERE run_id = ?1");
    run.bind(1, run_id);
    if (run.exec() == 0) return NoSuchRun(run_id);
    SQLite::Statement results(*database_, "DELETE FROM results WHERE run_id = ?1");
    results.bind(1, run_id);
    results.exec();
    transaction.commit();
    return absl::OkStatus();
  });
}

PagePosition PositionOf(const v1::RunDescription& run) {
  return {google::protobuf::util::TimeUtil::TimestampToMicroseconds(run.update_time()), run.run_id()};
}

}  // namespace mechinterp
