#ifndef SERVICES_MODEL_MEMORY_BUDGET_H_
#define SERVICES_MODEL_MEMORY_BUDGET_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <utility>

#include "absl/status/statusor.h"

namespace mechinterp {

// The memory that requests share: a limit, less what is always taken, less what
// stored activations take. A request reserves what it may come to need, by
// estimate, before any work for it begins. Thread-safe; outlives its reservations.
class MemoryBudget {
 public:
  // A request's share; given back when it goes.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept { *this = std::move(other); }
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() {
      if (budget_ != nullptr) budget_->GiveBack(bytes_);
    }

   private:
    friend class MemoryBudget;
    Reservation(MemoryBudget* budget, int64_t bytes) : budget_(budget), bytes_(bytes) {}
    MemoryBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

  // `limit_bytes` 0: no limit. `fixed_bytes`: what the weights and the scratch of
  // forward passes take of it. `stored_bytes` is asked at every Reserve; `on_change`,
  // if given, is told what is reserved whenever that changes, with the lock held.
  MemoryBudget(int64_t limit_bytes, int64_t fixed_bytes, std::function<int64_t()> stored_bytes,
               std::function<void(int64_t reserved_bytes)> on_change = nullptr);

  // Before the budget is used: how stored activations are moved out of memory, so many bytes of
  // them, where they are what a request lacks.
  void set_free_memory(std::function<void(int64_t bytes)> free_memory) {
    free_memory_ = std::move(free_memory);
  }

  // RESOURCE_EXHAUSTED, reason MEMORY_LIMIT, saying what was needed and what there
  // is; with RetryInfo when other requests hold what is missing, without when
  // waiting would not help.
  absl::StatusOr<Reservation> Reserve(int64_t bytes);

  int64_t limit_bytes() const { return limit_bytes_; }  // 0: none
  int64_t fixed_bytes() const { return fixed_bytes_; }
  int64_t reserved_bytes() const;
  // What requests can have at most, all together; the largest number where there is no limit.
  int64_t available_bytes() const {
    return limit_bytes_ == 0 ? std::numeric_limits<int64_t>::max()
                             : std::max<int64_t>(0, limit_bytes_ - fixed_bytes_);
  }

 private:
  // What is missing for so much more; with the lock held.
  int64_t Missing(int64_t bytes, int64_t stored) const;
  void GiveBack(int64_t bytes);
  void Add(int64_t bytes);  // with the lock held

  const int64_t limit_bytes_;
  const int64_t fixed_bytes_;
  const std::function<int64_t()> stored_bytes_;
  const std::function<void(int64_t)> on_change_;
  std::function<void(int64_t)> free_memory_;
  mutable std::mutex mutex_;
  int64_t reserved_bytes_ = 0;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_MEMORY_BUDGET_H_
