#include "services/model/activation_store.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

absl::Status UnknownHandle(const std::string& handle) {
  return ErrorWithReason(
      absl::StatusCode::kNotFound,
      absl::StrCat("no activations are stored under '", handle, "'; they may have expired"),
      "ACTIVATION_NOT_FOUND", {{"handle", handle}});
}

absl::Status DamagedRun(const std::string& handle) {
  return ErrorWithReason(
      absl::StatusCode::kDataLoss,
      absl::StrCat("the activations stored under '", handle, "' were damaged on the disk and are lost"),
      "ACTIVATION_DAMAGED", {{"handle", handle}});
}

std::string NewHandle() {
  std::random_device random;
  auto bits = [&] { return (uint64_t{random()} << 32) | random(); };
  return absl::StrCat("act-", absl::Hex(bits(), absl::kZeroPad16), absl::Hex(bits(), absl::kZeroPad16));
}

std::shared_ptr<KeptRun> NewRun(StoredRunInfo info, absl::Time last_use) {
  auto kept = std::make_shared<KeptRun>();
  kept->info = std::make_shared<const StoredRunInfo>(std::move(info));
  kept->last_use = last_use;
  return kept;
}

}  // namespace

ActivationStore::ActivationStore(ActivationStoreOptions options, StoreMetrics& metrics, Clock clock)
    : options_(std::move(options)), metrics_(metrics), clock_(std::move(clock)) {
  if (options_.directory) Recover();
  if (options_.tidy_interval > absl::ZeroDuration()) tidy_thread_ = std::thread([this] { TidyLoop(); });
}

ActivationStore::~ActivationStore() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  if (tidy_thread_.joinable()) tidy_thread_.join();
}

void ActivationStore::Recover() {
  SpillDirectory::Recovery recovery = options_.directory->Recover(clock_());
  for (SpillDirectory::FoundRun& found : recovery.runs) {
    const std::shared_ptr<KeptRun> kept = NewRun(std::move(found.info), found.last_use);
    kept->written_use = found.last_use;
    index_.Add(kept);
    index_.SetDiskBytes(*kept, found.disk_bytes);
  }
  metrics_.damaged.Increment(recovery.damaged);
  UpdateGauges();
  spdlog::info(
      "{}: {} stored runs; removed {} that were expired, {} of other models, {} unfinished, {} damaged",
      options_.directory->path(), recovery.runs.size(), recovery.expired, recovery.of_other_models,
      recovery.unfinished, recovery.damaged);
}

absl::StatusOr<std::string> ActivationStore::Put(const std::string& owner,
                                                 std::shared_ptr<const engine::RecordedRun> run,
                                                 absl::Duration time_to_live) {
  StoredRunInfo info = DescribeRun(*run);
  info.handle = NewHandle();
  info.owner = owner;
  info.create_time = clock_();
  info.time_to_live = time_to_live;
  const std::shared_ptr<KeptRun> kept = NewRun(std::move(info), clock_());
  kept->resident = std::make_shared<const ResidentRun>(std::move(run), held_bytes_);
  const int64_t index_bytes = StoredRunIndex::IndexBytes(*kept->info);
  const int64_t bytes = index_bytes + kept->resident->bytes();
  absl::Status status = WithRoom(bytes, [&] { index_.Add(kept); });
  // Too large for memory, whatever else leaves it.
  if (absl::IsOutOfRange(status) && options_.directory) status = PutOnDisk(kept);
  if (status.ok()) return kept->info->handle;
  return TryAgainLater(absl::StrCat("the activation store is full: ", bytes, " bytes more are needed; ",
                                    status.message(), ". Delete runs that are no longer used"),
                       "ACTIVATION_STORE_FULL", absl::Seconds(30));
}

absl::Status ActivationStore::PutOnDisk(const std::shared_ptr<KeptRun>& kept) {
  {
    std::lock_guard spilling(spilling_);
    ABSTRACT_RETURN_IF_ERROR(WriteFile(kept));
  }
  kept->resident = nullptr;  // nobody else has it yet
  absl::Status status = WithRoom(StoredRunIndex::IndexBytes(*kept->info), [&] { index_.Add(kept); });
  if (status.ok()) return status;
  {
    std::lock_guard lock(mutex_);
    index_.DoomFile(*kept);
  }
  RemoveDoomedFiles();
  return status;
}

absl::Status ActivationStore::WithRoom(int64_t bytes, const std::function<void()>& take) {
  std::unique_lock spilling(spilling_, std::defer_lock);
  while (true) {
    {
      std::lock_guard lock(mutex_);
      DropExpired();
      const int64_t in_use = index_.index_bytes() + index_.resident_bytes();
      if (in_use + bytes <= options_.max_memory_bytes) {
        take();
        UpdateGauges();
        return absl::OkStatus();
      }
      if (index_.index_bytes() + bytes > options_.max_memory_bytes) {
        return absl::OutOfRangeError(
            absl::StrCat("the server keeps at most ", options_.max_memory_bytes, " bytes in memory"));
      }
    }
    if (!spilling.owns_lock()) {
      spilling.lock();  // and look again: somebody may have made room
      continue;
    }
    ABSTRACT_RETURN_IF_ERROR(SpillOne());
  }
}

absl::Status ActivationStore::SpillOne() {
  std::shared_ptr<KeptRun> kept;
  {
    std::lock_guard lock(mutex_);
    kept = index_.LeastRecentlyUsed();
    if (kept == nullptr) return absl::ResourceExhaustedError("no run lies in memory");
    if (kept->disk_bytes > 0) {
      index_.SetResident(*kept, nullptr);
      UpdateGauges();
      return absl::OkStatus();
    }
  }
  const absl::Status written = WriteFile(kept);
  if (written.ok()) return written;
  std::lock_guard lock(mutex_);
  kept = index_.LeastRecentlyUsedOnDisk();
  if (kept == nullptr) return written;
  index_.SetResident(*kept, nullptr);
  UpdateGauges();
  return absl::OkStatus();
}

// With spilling_ held.
absl::Status ActivationStore::WriteFile(const std::shared_ptr<KeptRun>& kept) {
  if (!options_.directory) {
    return absl::ResourceExhaustedError(
        absl::StrCat("runs in memory take what they may, ", options_.max_memory_bytes, " bytes"));
  }
  RemoveDoomedFiles();
  std::shared_ptr<const ResidentRun> resident;
  absl::Time last_use;
  int64_t left = 0;
  {
    std::lock_guard lock(mutex_);
    resident = kept->resident;
    if (resident == nullptr) return absl::OkStatus();  // deleted by now
    last_use = kept->last_use;
    left = options_.max_disk_bytes - index_.disk_bytes();
    being_written_ = kept;
  }
  const absl::StatusOr<int64_t> bytes =
      options_.directory->Write(*kept->info, resident->run(), last_use, left);
  std::lock_guard lock(mutex_);
  being_written_ = nullptr;
  if (!bytes.ok()) {
    if (!absl::IsResourceExhausted(bytes.status())) {
      spdlog::error("a stored run cannot be written to {}: {}", options_.directory->path(),
                    DescribeStatus(bytes.status()));
    }
    return absl::ResourceExhaustedError(
        absl::StrCat("a run cannot move to the disk: ", bytes.status().message()));
  }
  metrics_.spills.Increment();
  kept->written_use = last_use;
  index_.SetDiskBytes(*kept, *bytes);
  if (kept->removed) index_.DoomFile(*kept);  // in the meantime
  UpdateGauges();
  return absl::OkStatus();
}

void ActivationStore::RemoveDoomedFiles() {
  std::lock_guard removing(removing_);
  std::vector<DoomedFile> files;
  {
    std::lock_guard lock(mutex_);
    files = index_.TakeDoomed();
  }
  for (const DoomedFile& file : files) {
    const absl::Status removed = options_.directory->Remove(file.handle);
    if (!removed.ok()) spdlog::error("{}", DescribeStatus(removed));
    std::lock_guard lock(mutex_);
    index_.Forget(file);
    UpdateGauges();
  }
}

absl::StatusOr<ActivationStore::Entry> ActivationStore::Get(const std::string& owner,
                                                            const std::string& handle) {
  std::shared_ptr<KeptRun> kept;
  {
    std::lock_guard lock(mutex_);
    DropExpired();
    kept = index_.Find(owner, handle);
    if (kept == nullptr) return UnknownHandle(handle);
    if (kept->lost) return DamagedRun(handle);
    index_.Use(*kept, clock_());
    if (kept->resident) return EntryOf(*kept);
  }
  return Load(kept);
}

absl::StatusOr<ActivationStore::Entry> ActivationStore::Load(const std::shared_ptr<KeptRun>& kept) {
  std::lock_guard loading(kept->loading);  // those who want it too wait for the one reading
  {
    std::lock_guard lock(mutex_);
    if (kept->removed) return UnknownHandle(kept->info->handle);
    if (kept->lost) return DamagedRun(kept->info->handle);
    if (kept->resident) return EntryOf(*kept);
  }
  // Until the run counts itself.
  absl::StatusOr<MemoryBudget::Reservation> reservation;
  if (reserve_) {
    reservation = reserve_(RunFootprintBytes(*kept->info));
    if (!reservation.ok()) return WithContext(reservation.status(), "reading stored activations");
  }
  absl::StatusOr<engine::RecordedRun> read = options_.directory->Read(*kept->info);
  if (!read.ok()) return ReadFailed(*kept, read.status());
  metrics_.loads.Increment();
  const auto resident = std::make_shared<const ResidentRun>(
      std::make_shared<const engine::RecordedRun>(*std::move(read)), held_bytes_);
  reservation = MemoryBudget::Reservation();
  // Kept in memory if others can make room; else whoever asked has it alone.
  WithRoom(resident->bytes(), [&] {
    if (!kept->removed) index_.SetResident(*kept, resident);
  }).IgnoreError();
  std::lock_guard lock(mutex_);
  return Entry{kept->info, ResidentRun::RunOf(resident), kept->expire_time()};
}

absl::Status ActivationStore::ReadFailed(KeptRun& kept, const absl::Status& status) {
  const std::string& handle = kept.info->handle;
  {
    std::lock_guard lock(mutex_);
    if (kept.removed) return UnknownHandle(handle);
    if (absl::IsDataLoss(status)) {
      kept.lost = true;
      index_.DoomFile(kept);
      metrics_.damaged.Increment();
    }
  }
  spdlog::error("the stored run in {}/{}: {}", options_.directory->path(), SpillDirectory::FileName(handle),
                DescribeStatus(status));
  if (!absl::IsDataLoss(status)) return WithContext(status, "reading stored activations");
  RemoveDoomedFiles();
  return DamagedRun(handle);
}

absl::Status ActivationStore::Delete(const std::string& owner, const std::string& handle) {
  bool is_being_written = false;
  {
    std::lock_guard lock(mutex_);
    DropExpired();
    const std::shared_ptr<KeptRun> kept = index_.Find(owner, handle);
    if (kept == nullptr) return UnknownHandle(handle);
    is_being_written = being_written_ == kept;
    index_.Remove(*kept);
    UpdateGauges();
  }
  // Else its file would come to be after this returns, and a crash could bring the run back.
  if (is_being_written) std::lock_guard wait(spilling_);
  if (options_.directory) RemoveDoomedFiles();
  return absl::OkStatus();
}

std::vector<ActivationStore::Entry> ActivationStore::List(const std::string& owner) {
  std::vector<Entry> entries;
  {
    std::lock_guard lock(mutex_);
    DropExpired();
    for (const auto& [handle, kept] : index_.runs()) {
      if (kept->info->owner == owner && !kept->lost) entries.push_back(EntryOf(*kept));
    }
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.info->create_time < b.info->create_time; });
  return entries;
}

ActivationStore::Entry ActivationStore::EntryOf(const KeptRun& kept) const {
  return {kept.info, kept.resident ? ResidentRun::RunOf(kept.resident) : nullptr, kept.expire_time()};
}

int64_t ActivationStore::memory_bytes() {
  std::lock_guard lock(mutex_);
  DropExpired();
  return index_.index_bytes() + *held_bytes_;
}

int64_t ActivationStore::disk_bytes() {
  std::lock_guard lock(mutex_);
  return index_.disk_bytes();
}

void ActivationStore::FreeMemory(int64_t bytes) {
  if (!options_.directory) return;
  std::lock_guard spilling(spilling_);
  int64_t target = 0;
  {
    std::lock_guard lock(mutex_);
    target = index_.resident_bytes() - bytes;
  }
  const auto is_enough = [&] {
    std::lock_guard lock(mutex_);
    return index_.resident_bytes() <= target;
  };
  while (!is_enough() && SpillOne().ok()) {
  }
}

void ActivationStore::SpillAll() {
  if (!options_.directory) return;
  std::lock_guard spilling(spilling_);
  std::vector<std::shared_ptr<KeptRun>> unwritten;
  {
    std::lock_guard lock(mutex_);
    DropExpired();
    for (const auto& [handle, kept] : index_.runs()) {
      if (kept->resident && kept->disk_bytes == 0) unwritten.push_back(kept);
    }
  }
  for (const std::shared_ptr<KeptRun>& kept : unwritten) {
    if (const absl::Status status = WriteFile(kept); !status.ok()) {
      spdlog::warn("stored runs that lie in memory end with the server: {}", DescribeStatus(status));
      break;
    }
  }
  Tidy();
}

void ActivationStore::Tidy() {
  std::vector<std::pair<std::string, absl::Time>> used;
  {
    std::lock_guard lock(mutex_);
    DropExpired();
    if (!options_.directory) return;
    for (const auto& [handle, kept] : index_.runs()) {
      if (kept->disk_bytes == 0 || kept->written_use == kept->last_use) continue;
      used.emplace_back(handle, kept->written_use = kept->last_use);
    }
  }
  for (const auto& [handle, last_use] : used) options_.directory->SetLastUse(handle, last_use);
  RemoveDoomedFiles();
}

void ActivationStore::TidyLoop() {
  const auto interval = absl::ToChronoNanoseconds(options_.tidy_interval);
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, interval, [this] { return stopping_; })) {
    lock.unlock();
    Tidy();
    lock.lock();
  }
}

void ActivationStore::DropExpired() {
  index_.RemoveExpired(clock_());
  UpdateGauges();
}

void ActivationStore::UpdateGauges() {
  metrics_.runs.Set(static_cast<double>(index_.count()));
  metrics_.memory_bytes.Set(static_cast<double>(index_.index_bytes() + index_.resident_bytes()));
  metrics_.disk_bytes.Set(static_cast<double>(index_.disk_bytes()));
}

}  // namespace mechinterp
