#ifndef SERVICES_ANALYSIS_RUN_STORE_H_
#define SERVICES_ANALYSIS_RUN_STORE_H_

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mechinterp/v1/analysis_service.pb.h"
#include "services/common/paging.h"

namespace SQLite {
class Database;
}

namespace mechinterp {

// The studies' results in an SQLite file: runs, and for each the results of its
// experiments, whichever they are; they outlive the process. Files of older versions
// are brought up to date when they are opened. Thread-safe. Errors of the file or the disk are
// FailedPrecondition or Internal and name the file.
class RunStore {
 public:
  // Makes the file and its folder when they do not exist. FailedPrecondition when
  // the file cannot be written, is no database, or was made by a newer version.
  static absl::StatusOr<std::unique_ptr<RunStore>> Open(const std::string& path);
  ~RunStore();

  // Adds the parts that `study` has to the run; those it lacks stay as they were.
  absl::Status Import(const std::string& run_id, const v1::Study& study);
  // At most `max_count` runs, the latest first: those after `last`, or the first of all.
  absl::StatusOr<std::vector<v1::RunDescription>> List(
      int max_count, const std::optional<PagePosition>& last = std::nullopt);
  // NotFound with reason RUN_NOT_FOUND.
  absl::StatusOr<v1::RunDescription> Describe(const std::string& run_id);
  // NotFound with reason RUN_NOT_FOUND.
  absl::StatusOr<v1::GetRunResponse> Get(const std::string& run_id);
  // NotFound with reason RUN_NOT_FOUND.
  absl::Status Delete(const std::string& run_id);

 private:
  RunStore(std::string path, std::unique_ptr<SQLite::Database> database);

  const std::string path_;
  std::mutex mutex_;
  std::unique_ptr<SQLite::Database> database_;
};

// Where a run stands in the list.
PagePosition PositionOf(const v1::RunDescription& run);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_RUN_STORE_H_
