#include "services/model/stored_run_index.h"

namespace mechinterp {

int64_t StoredRunIndex::IndexBytes(const StoredRunInfo& info) {
  constexpr size_t kPointer = sizeof(void*), kTreeNode = 4 * kPointer;
  return FootprintBytes(info) + HeapBytes(2 * kPointer + sizeof(KeptRun)) +
         HeapBytes(kTreeNode + sizeof(decltype(runs_)::value_type)) + HeapBytes(info.handle.size() + 1) +
         HeapBytes(kTreeNode + sizeof(decltype(by_expiry_)::value_type)) + HeapBytes(3 * kPointer);
}

void StoredRunIndex::Add(std::shared_ptr<KeptRun> shared) {
  KeptRun& run = *shared;
  run.index_bytes = IndexBytes(*run.info);
  index_bytes_ += run.index_bytes;
  by_expiry_.emplace(run.expire_time(), &run);
  runs_.emplace(run.info->handle, std::move(shared));
  if (run.resident) SetResident(run, std::move(run.resident));
}

std::shared_ptr<KeptRun> StoredRunIndex::Find(const std::string& owner, const std::string& handle) const {
  const auto found = runs_.find(handle);
  return found == runs_.end() || found->second->info->owner != owner ? nullptr : found->second;
}

void StoredRunIndex::Remove(KeptRun& run) {
  const std::shared_ptr<KeptRun> alive = Shared(run);
  SetResident(run, nullptr);
  DoomFile(run);
  index_bytes_ -= run.index_bytes;
  by_expiry_.erase({run.expire_time(), &run});
  runs_.erase(run.info->handle);
  run.removed = true;
}

void StoredRunIndex::Use(KeptRun& run, absl::Time now) {
  by_expiry_.erase({run.expire_time(), &run});
  run.last_use = now;
  by_expiry_.emplace(run.expire_time(), &run);
  if (run.resident) by_use_.splice(by_use_.end(), by_use_, run.use_order);
}

void StoredRunIndex::SetResident(KeptRun& run, std::shared_ptr<const ResidentRun> resident) {
  // Add hands over what the run had already: then there is nothing to take out.
  if (run.resident) {
    resident_bytes_ -= run.resident->bytes();
    by_use_.erase(run.use_order);
  }
  run.resident = std::move(resident);
  if (run.resident) {
    resident_bytes_ += run.resident->bytes();
    run.use_order = by_use_.insert(by_use_.end(), &run);
  }
}

void StoredRunIndex::SetDiskBytes(KeptRun& run, int64_t bytes) {
  disk_bytes_ += bytes - run.disk_bytes;
  run.disk_bytes = bytes;
}

void StoredRunIndex::DoomFile(KeptRun& run) {
  if (run.disk_bytes > 0) doomed_.push_back({run.info->handle, std::exchange(run.disk_bytes, 0)});
}

void StoredRunIndex::RemoveExpired(absl::Time now) {
  while (!by_expiry_.empty() && by_expiry_.begin()->first <= now) Remove(*by_expiry_.begin()->second);
}

std::shared_ptr<KeptRun> StoredRunIndex::LeastRecentlyUsed() const {
  return by_use_.empty() ? nullptr : Shared(*by_use_.front());
}

std::shared_ptr<KeptRun> StoredRunIndex::LeastRecentlyUsedOnDisk() const {
  for (const KeptRun* run : by_use_) {
    if (run->disk_bytes > 0) return Shared(*run);
  }
  return nullptr;
}

}  // namespace mechinterp
