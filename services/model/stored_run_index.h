#ifndef SERVICES_MODEL_STORED_RUN_INDEX_H_
#define SERVICES_MODEL_STORED_RUN_INDEX_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "services/model/stored_run.h"

namespace mechinterp {

// A run that the store keeps. But for `info` and `loading`, its fields are read and written with
// the store's lock held, and those below by StoredRunIndex alone.
struct KeptRun {
  std::shared_ptr<const StoredRunInfo> info;
  std::mutex loading;      // held by who reads it from the disk
  absl::Time written_use;  // last use, as its file has it
  bool lost = false;       // its file was found damaged; there are no values any more

  absl::Time last_use;
  std::shared_ptr<const ResidentRun> resident;  // null: not in memory
  int64_t disk_bytes = 0;                       // of its file; 0: none
  bool removed = false;                         // from the index
  int64_t index_bytes = 0;
  std::list<KeptRun*>::iterator use_order = {};  // while it is resident

  absl::Time expire_time() const { return last_use + info->time_to_live; }
};

// The file of a run that is no more.
struct DoomedFile {
  std::string handle;
  int64_t disk_bytes = 0;
};

// The runs of the store: by handle, by last use, by when they expire; and what they take. Not
// thread-safe.
class StoredRunIndex {
 public:
  // As the most recently used, with `last_use` and `resident` as they are. A file is counted by
  // SetDiskBytes, before or after.
  void Add(std::shared_ptr<KeptRun> run);
  // Null when there is none of this handle, or it is another's.
  std::shared_ptr<KeptRun> Find(const std::string& owner, const std::string& handle) const;
  // Its file, if it has one, stays on the disk, and is counted, until it has been taken and forgotten.
  void Remove(KeptRun& run);
  std::vector<DoomedFile> TakeDoomed() { return std::exchange(doomed_, {}); }
  void DoomFile(KeptRun& run);
  void Forget(const DoomedFile& file) { disk_bytes_ -= file.disk_bytes; }
  void Use(KeptRun& run, absl::Time now);
  void SetResident(KeptRun& run, std::shared_ptr<const ResidentRun> resident);  // null: no longer
  void SetDiskBytes(KeptRun& run, int64_t bytes);

  void RemoveExpired(absl::Time now);
  // Of the runs in memory; null when there are none. And of those that lie on the disk as well.
  std::shared_ptr<KeptRun> LeastRecentlyUsed() const;
  std::shared_ptr<KeptRun> LeastRecentlyUsedOnDisk() const;

  const std::map<std::string, std::shared_ptr<KeptRun>>& runs() const { return runs_; }
  int64_t count() const { return static_cast<int64_t>(runs_.size()); }
  int64_t index_bytes() const { return index_bytes_; }        // of memory, for runs anywhere
  int64_t resident_bytes() const { return resident_bytes_; }  // of the runs in memory, beside it
  int64_t disk_bytes() const { return disk_bytes_; }
  // What Add will add to index_bytes.
  static int64_t IndexBytes(const StoredRunInfo& info);

 private:
  std::shared_ptr<KeptRun> Shared(const KeptRun& run) const { return runs_.at(run.info->handle); }

  std::map<std::string, std::shared_ptr<KeptRun>> runs_;
  std::list<KeptRun*> by_use_;  // in memory, least recently used first
  std::set<std::pair<absl::Time, KeptRun*>> by_expiry_;
  std::vector<DoomedFile> doomed_;
  int64_t index_bytes_ = 0;
  int64_t resident_bytes_ = 0;
  int64_t disk_bytes_ = 0;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_STORED_RUN_INDEX_H_
