#include "services/model/activation_store.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace mechinterp {
namespace {

absl::Status UnknownHandle(const std::string& handle) {
  return ErrorWithReason(
      absl::StatusCode::kNotFound,
      absl::StrCat("no activations are stored under '", handle, "'; they may have expired"),
      "ACTIVATION_NOT_FOUND", {{"handle", handle}});
}

std::string NewHandle() {
  std::random_device random;
  auto bits = [&] { return (uint64_t{random()} << 32) | random(); };
  return absl::StrCat("act-", absl::Hex(bits(), absl::kZeroPad16), absl::Hex(bits(), absl::kZeroPad16));
}

}  // namespace

int64_t ByteCount(const engine::RecordedRun& run) {
  int64_t bytes = 0;
  for (const auto& [site, recorded] : run.activations)
    bytes += recorded.values.size() * int64_t{sizeof(float)};
  return bytes;
}

ActivationStore::ActivationStore(int64_t max_bytes, ModelMetrics& metrics, Clock clock)
    : max_bytes_(max_bytes), metrics_(metrics), clock_(std::move(clock)) {}

absl::StatusOr<std::string> ActivationStore::Put(std::shared_ptr<const engine::RecordedRun> run,
                                                 absl::Duration time_to_live) {
  const int64_t bytes = ByteCount(*run);
  std::lock_guard lock(mutex_);
  DropExpired();
  if (total_bytes_ + bytes > max_bytes_) {
    return TryAgainLater(
        absl::StrCat("the activation store is full: ", total_bytes_, " of ", max_bytes_, " bytes in use, ",
                     bytes, " more needed; delete runs that are no longer used"),
        "ACTIVATION_STORE_FULL", absl::Seconds(30));
  }
  const absl::Time now = clock_();
  Entry entry{NewHandle(), std::move(run), bytes, now, now + time_to_live, time_to_live};
  const std::string handle = entry.handle;
  total_bytes_ += bytes;
  entries_.emplace(handle, std::move(entry));
  UpdateGauges();
  return handle;
}

absl::StatusOr<ActivationStore::Entry> ActivationStore::Get(const std::string& handle) {
  std::lock_guard lock(mutex_);
  DropExpired();
  auto found = entries_.find(handle);
  if (found == entries_.end()) return UnknownHandle(handle);
  found->second.expire_time = clock_() + found->second.time_to_live;
  return found->second;
}

absl::Status ActivationStore::Delete(const std::string& handle) {
  std::lock_guard lock(mutex_);
  DropExpired();
  auto found = entries_.find(handle);
  if (found == entries_.end()) return UnknownHandle(handle);
  total_bytes_ -= found->second.bytes;
  entries_.erase(found);
  UpdateGauges();
  return absl::OkStatus();
}

std::vector<ActivationStore::Entry> ActivationStore::List() {
  std::vector<Entry> entries;
  {
    std::lock_guard lock(mutex_);
    DropExpired();
    for (const auto& [handle, entry] : entries_) entries.push_back(entry);
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.create_time < b.create_time; });
  return entries;
}

int64_t ActivationStore::total_bytes() {
  std::lock_guard lock(mutex_);
  DropExpired();
  return total_bytes_;
}

void ActivationStore::DropExpired() {
  const absl::Time now = clock_();
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->second.expire_time > now) {
      ++it;
      continue;
    }
    total_bytes_ -= it->second.bytes;
    it = entries_.erase(it);
  }
  UpdateGauges();
}

void ActivationStore::UpdateGauges() {
  metrics_.stored_runs.Set(static_cast<double>(entries_.size()));
  metrics_.stored_bytes.Set(static_cast<double>(total_bytes_));
}

}  // namespace mechinterp
