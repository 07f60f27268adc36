#include "services/model/memory_budget.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/status.h"

namespace mechinterp {
namespace {

std::string Mebibytes(int64_t bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

MemoryBudget::MemoryBudget(int64_t limit_bytes, int64_t fixed_bytes, std::function<int64_t()> stored_bytes,
                           std::function<void(int64_t)> on_change)
    : limit_bytes_(limit_bytes),
      fixed_bytes_(fixed_bytes),
      stored_bytes_(std::move(stored_bytes)),
      on_change_(std::move(on_change)) {}

absl::StatusOr<MemoryBudget::Reservation> MemoryBudget::Reserve(int64_t bytes) {
  int64_t stored = stored_bytes_();
  std::unique_lock lock(mutex_);
  const int64_t for_requests = limit_bytes_ - fixed_bytes_;
  const int64_t missing = Missing(bytes, stored);
  // Not for what other requests hold: then nothing is won by it.
  if (missing > 0 && missing <= stored && free_memory_) {
    lock.unlock();
    free_memory_(missing);
    stored = stored_bytes_();
    lock.lock();
  }
  if (Missing(bytes, stored) <= 0) {
    Add(bytes);
    return Reservation(this, bytes);
  }
  const std::string need = absl::StrCat("the request may take ", Mebibytes(bytes), " of memory; ");
  if (bytes > for_requests) {
    return ErrorWithReason(absl::StatusCode::kResourceExhausted,
                           absl::StrCat(need, "the server has ", Mebibytes(for_requests),
                                        " for requests. Ask for shorter prompts, fewer positions, sites or "
                                        "new tokens, or raise the server's --memory-limit"),
                           "MEMORY_LIMIT");
  }
  if (bytes + stored > for_requests) {
    return ErrorWithReason(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat(need, "of the server's ", Mebibytes(for_requests), ", stored activations hold ",
                     Mebibytes(stored), ". Delete some, or wait until they expire"),
        "MEMORY_LIMIT");
  }
  return TryAgainLater(absl::StrCat(need, "requests in progress hold ", Mebibytes(reserved_bytes_),
                                    " of the server's ", Mebibytes(for_requests), "; try again shortly"),
                       "MEMORY_LIMIT", absl::Seconds(1));
}

int64_t MemoryBudget::Missing(int64_t bytes, int64_t stored) const {
  return limit_bytes_ == 0 ? 0 : bytes + stored + reserved_bytes_ - (limit_bytes_ - fixed_bytes_);
}

int64_t MemoryBudget::reserved_bytes() const {
  std::lock_guard lock(mutex_);
  return reserved_bytes_;
}

void MemoryBudget::GiveBack(int64_t bytes) {
  std::lock_guard lock(mutex_);
  Add(-bytes);
}

void MemoryBudget::Add(int64_t bytes) {
  reserved_bytes_ += bytes;
  if (on_change_) on_change_(reserved_bytes_);
}

}  // namespace mechinterp
