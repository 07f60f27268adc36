#include "services/analysis/run_store.h"

#include <sqlite3.h>

#include <chrono>
#include <utility>

#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "services/analysis/study.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

// PRAGMA user_version; raise it with every change of the table, and migrate.
constexpr int kSchemaVersion = 1;
constexpr int kBusyTimeoutMs = 5000;

constexpr char kCreateTable[] = R"(
  CREATE TABLE runs (
    run_id             TEXT PRIMARY KEY,
    update_time_micros INTEGER NOT NULL,
    model_name         TEXT NOT NULL,
    baseline           BLOB,    -- mechinterp.v1.BaselineResults
    patching           BLOB,    -- mechinterp.v1.PatchingResults
    ablation           BLOB     -- mechinterp.v1.AblationResults
  ))";

constexpr char kImport[] = R"(
  INSERT INTO runs (run_id, update_time_micros, model_name, baseline, patching, ablation)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6)
  ON CONFLICT (run_id) DO UPDATE SET
    update_time_micros = excluded.update_time_micros,
    model_name = CASE excluded.model_name WHEN '' THEN model_name ELSE excluded.model_name END,
    baseline = coalesce(excluded.baseline, baseline),
    patching = coalesce(excluded.patching, patching),
    ablation = coalesce(excluded.ablation, ablation))";

constexpr char kDescriptionColumns[] =
    "run_id, update_time_micros, model_name, baseline IS NOT NULL, patching IS NOT NULL, ablation IS NOT "
    "NULL";

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
  description.set_has_baseline(query.getColumn(3).getInt() != 0);
  description.set_has_patching(query.getColumn(4).getInt() != 0);
  description.set_has_ablation(query.getColumn(5).getInt() != 0);
  return description;
}

template <typename Message>
void BindPart(SQLite::Statement& statement, int index, bool is_set, const Message& part) {
  if (!is_set) {
    statement.bind(index);  // NULL
    return;
  }
  const std::string bytes = part.SerializeAsString();
  statement.bind(index, bytes.data(), static_cast<int>(bytes.size()));
}

template <typename Message>
absl::Status ReadPart(SQLite::Statement& query, int index, Message* part) {
  const SQLite::Column column = query.getColumn(index);
  if (part->ParseFromArray(column.getBlob(), column.getBytes())) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("column ", column.getName(), " holds no ", part->GetTypeName()));
}

// Makes the table in a new file; refuses files that this version does not know.
absl::Status PrepareSchema(SQLite::Database& database) {
  SQLite::Transaction transaction(database);
  const int version = database.execAndGet("PRAGMA user_version").getInt();
  if (version > kSchemaVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("it was made by a newer version of this program (schema ", version, "; this one knows ",
                     kSchemaVersion, ")"));
  }
  if (version == 0) {
    database.exec(kCreateTable);
    database.exec(absl::StrCat("PRAGMA user_version = ", kSchemaVersion));
  }
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
    SQLite::Statement statement(*database_, kImport);
    statement.bind(1, run_id);
    statement.bind(2, static_cast<int64_t>(NowMicros()));
    statement.bind(3, ModelName(study));
    BindPart(statement, 4, study.has_baseline(), study.baseline());
    BindPart(statement, 5, study.has_patching(), study.patching());
    BindPart(statement, 6, study.has_ablation(), study.ablation());
    statement.exec();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<v1::RunDescription>> RunStore::List() {
  const std::lock_guard lock(mutex_);
  return Guarded(path_, [&]() -> absl::StatusOr<std::vector<v1::RunDescription>> {
    SQLite::Statement query(*database_,
                            absl::StrCat("SELECT ", kDescriptionColumns,
                                         " FROM runs ORDER BY update_time_micros DESC, rowid DESC"));
    std::vector<v1::RunDescription> runs;
    while (query.executeStep()) runs.push_back(ReadDescription(query));
    return runs;
  });
}

absl::StatusOr<v1::GetRunResponse> RunStore::Get(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  return Guarded(path_, [&]() -> absl::StatusOr<v1::GetRunResponse> {
    SQLite::Statement query(*database_,
                            absl::StrCat("SELECT ", kDescriptionColumns,
                                         ", baseline, patching, ablation FROM runs WHERE run_id = ?1"));
    query.bind(1, run_id);
    if (!query.executeStep()) return NoSuchRun(run_id);
    v1::GetRunResponse run;
    *run.mutable_description() = ReadDescription(query);
    v1::Study& study = *run.mutable_study();
    if (run.description().has_baseline())
      ABSTRACT_RETURN_IF_ERROR(ReadPart(query, 6, study.mutable_baseline()));
    if (run.description().has_patching())
      ABSTRACT_RETURN_IF_ERROR(ReadPart(query, 7, study.mutable_patching()));
    if (run.description().has_ablation())
      ABSTRACT_RETURN_IF_ERROR(ReadPart(query, 8, study.mutable_ablation()));
    return run;
  });
}

absl::Status RunStore::Delete(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  return Guarded(path_, [&]() -> absl::Status {
    SQLite::Statement statement(*database_, "DELETE FROM runs WHERE run_id = ?1");
    statement.bind(1, run_id);
    return statement.exec() > 0 ? absl::OkStatus() : NoSuchRun(run_id);
  });
}

}  // namespace mechinterp
