#ifndef SERVICES_MODEL_SPILL_DIRECTORY_H_
#define SERVICES_MODEL_SPILL_DIRECTORY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/model/stored_run_file.h"

namespace mechinterp {

// The folder in which stored runs lie that found no room in memory: a file each, 0600 in 0700,
// named by the SHA-256 of the run's handle. A file is written beside its name, synced and
// renamed, so that a kill or a power cut leaves it whole or not at all; its time of change is
// the run's last use. Whoever can read the files has the activations anyway, so the handle
// stands in them too, and runs can be listed after a restart. Thread-safe; for one handle, one
// call at a time, but for Read.
class SpillDirectory {
 public:
  // Makes the folder if it is missing. Errors: FailedPrecondition when it is not this user's
  // alone, or no folder; Unavailable while another server has it; and the system's.
  static absl::StatusOr<std::shared_ptr<SpillDirectory>> Open(const std::string& path,
                                                              StoredRunFormat format);
  ~SpillDirectory();
  SpillDirectory(const SpillDirectory&) = delete;
  SpillDirectory& operator=(const SpillDirectory&) = delete;

  struct FoundRun {
    StoredRunInfo info;
    absl::Time last_use;
    int64_t disk_bytes = 0;
  };
  struct Recovery {
    std::vector<FoundRun> runs;  // whose headers are whole; their values are verified by Read
    int unfinished = 0;          // files of each kind that were removed
    int damaged = 0;
    int expired = 0;
    int of_other_models = 0;
  };
  // What a server before left. Touches no file whose name is not one of ours.
  Recovery Recover(absl::Time now);

  // Returns what the file takes of the disk. ResourceExhausted, before anything is written, when
  // that is more than `max_bytes`; and when the disk, or the user's share of it, is full.
  absl::StatusOr<int64_t> Write(const StoredRunInfo& info, const engine::RecordedRun& run,
                                absl::Time last_use, int64_t max_bytes);
  // DataLoss when the file is gone or not as it was written; Unavailable when it cannot be read
  // now; ResourceExhausted without memory.
  absl::StatusOr<engine::RecordedRun> Read(const StoredRunInfo& info) const;
  absl::Status Remove(const std::string& handle);
  void SetLastUse(const std::string& handle, absl::Time last_use);

  const std::string& path() const { return path_; }
  // The name of the file of a run, in the folder.
  static std::string FileName(const std::string& handle);

 private:
  SpillDirectory(std::string path, int descriptor, StoredRunFormat format)
      : path_(std::move(path)), descriptor_(descriptor), format_(std::move(format)) {}
  absl::StatusOr<FoundRun> Inspect(const std::string& name, absl::Time now) const;

  const std::string path_;
  const int descriptor_;  // of the folder; holds its lock
  const StoredRunFormat format_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SPILL_DIRECTORY_H_
