#ifndef SERVICES_MODEL_ACTIVATION_STORE_H_
#define SERVICES_MODEL_ACTIVATION_STORE_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "services/model/memory_budget.h"
#include "services/model/spill_directory.h"
#include "services/model/store_metrics.h"
#include "services/model/stored_run.h"
#include "services/model/stored_run_index.h"

namespace mechinterp {

struct ActivationStoreOptions {
  // What all runs may take of memory, their entries in the index included, and of the disk.
  int64_t max_memory_bytes = 0;
  int64_t max_disk_bytes = 0;
  std::shared_ptr<SpillDirectory> directory;  // null: memory only
  // How often Tidy is called by a thread of the store's own; 0: never.
  absl::Duration tidy_interval;
};

// Runs that clients keep on the server, under handles, for a time after their last use. They lie
// in memory up to a quota; beyond it the least recently used are written to a folder, if there
// is one, and read back when they are asked for. One that has been read keeps its file, and is
// not written again. Where neither place has room the new run is refused and the old ones stay.
//
// A run is its owner's: for anybody else its handle is unknown. Owners are names that the caller
// vouches for; without authentication all have the empty one, and share.
//
// Thread-safe. Runs in memory never wait for the disk. A run that was handed out stays valid
// after it is deleted, and counts as memory as long as somebody holds it.
class ActivationStore {
 public:
  using Clock = std::function<absl::Time()>;
  using Reserve = std::function<absl::StatusOr<MemoryBudget::Reservation>(int64_t bytes)>;

  // A run as it is handed out, and as it is listed.
  struct Entry {
    std::shared_ptr<const StoredRunInfo> info;
    std::shared_ptr<const engine::RecordedRun> run;  // null when it is listed from the disk
    absl::Time expire_time;
  };

  // Takes up what lies in the folder. `metrics` must outlive the store.
  ActivationStore(ActivationStoreOptions options, StoreMetrics& metrics, Clock clock = absl::Now);
  ~ActivationStore();

  // Before the store is used: where the memory comes from into which runs are read. Without it
  // there is always enough.
  void set_reserve(Reserve reserve) { reserve_ = std::move(reserve); }

  // Returns a new handle that nobody can guess. RESOURCE_EXHAUSTED, reason ACTIVATION_STORE_FULL.
  absl::StatusOr<std::string> Put(const std::string& owner, std::shared_ptr<const engine::RecordedRun> run,
                                  absl::Duration time_to_live);
  // Prolongs the run's life. Errors: NOT_FOUND, reason ACTIVATION_NOT_FOUND, for unknown and expired
  // handles and others' runs; DATA_LOSS, reason ACTIVATION_DAMAGED, when its file is not what was
  // written; UNAVAILABLE when it cannot be read now; those of `reserve`.
  absl::StatusOr<Entry> Get(const std::string& owner, const std::string& handle);
  // When it returns, the run's file is gone too.
  absl::Status Delete(const std::string& owner, const std::string& handle);
  // In the order of creation.
  std::vector<Entry> List(const std::string& owner);

  // Of memory: the index, the runs in it, and runs that are no longer in it but held by somebody.
  int64_t memory_bytes();
  int64_t disk_bytes();

  // Lets expired runs go, with their files, and writes down when files were last used.
  void Tidy();
  // Frees so much memory, or what can be, by moving runs to the disk.
  void FreeMemory(int64_t bytes);
  // Writes what lies in memory alone to the disk, for a server to come, as far as there is room.
  void SpillAll();

 private:
  void Recover();
  void TidyLoop();
  void DropExpired();   // with the lock held
  void UpdateGauges();  // with the lock held
  Entry EntryOf(const KeptRun& run) const;

  absl::StatusOr<Entry> Load(const std::shared_ptr<KeptRun>& kept);
  absl::Status ReadFailed(KeptRun& kept, const absl::Status& status);
  absl::Status PutOnDisk(const std::shared_ptr<KeptRun>& kept);
  // Calls `take` with the lock held as soon as memory has room for so many bytes more.
  absl::Status WithRoom(int64_t bytes, const std::function<void()>& take);

  // With spilling_ held: makes the least recently used run in memory lie on the disk as well, or
  // no longer in memory if it does already. ResourceExhausted when there is none left to move.
  absl::Status SpillOne();
  absl::Status WriteFile(const std::shared_ptr<KeptRun>& kept);
  void RemoveDoomedFiles();

  const ActivationStoreOptions options_;
  StoreMetrics& metrics_;
  const Clock clock_;
  Reserve reserve_;
  // Bytes of all runs in memory that anybody holds.
  const std::shared_ptr<std::atomic<int64_t>> held_bytes_ = std::make_shared<std::atomic<int64_t>>(0);

  // Taken in this order; only mutex_ is ever waited for by those who need no disk.
  std::mutex spilling_;  // by who moves runs to the disk
  std::mutex removing_;  // by who removes files
  std::mutex mutex_;     // of what follows
  StoredRunIndex index_;
  std::shared_ptr<KeptRun> being_written_;
  bool stopping_ = false;
  std::condition_variable stop_;
  std::thread tidy_thread_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_ACTIVATION_STORE_H_
