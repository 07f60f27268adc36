#include "services/engine/kernels/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace mechinterp::engine::kernels {
namespace {

void Pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A loop that is being run. `members`: threads that are inside, and kClosed when no
// more may enter; so a thread that wakes too late is never waited for.
struct Loop {
  static constexpr uint32_t kClosed = 1u << 31;

  std::atomic<uint32_t> members{kClosed};
  std::atomic<int64_t> next{0};
  int64_t end = 0;
  int64_t grain = 1;
  int64_t shares = 1;  // a thread takes one of so many of what is left
  void (*call)(const void*, int64_t, int64_t) = nullptr;
  const void* function = nullptr;
  std::atomic<const uint8_t*> next_read{nullptr};  // see PrefetchTarget
  std::atomic<int64_t> next_read_bytes{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  void Work() {
    try {
      int64_t first = next.load(std::memory_order_relaxed);
      while (first < end) {
        const int64_t after = std::min(end, first + std::max(grain, (end - first) / shares));
        if (!next.compare_exchange_weak(first, after, std::memory_order_relaxed)) continue;
        call(function, first, after);
        first = next.load(std::memory_order_relaxed);
      }
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      next.store(end, std::memory_order_relaxed);
    }
  }
};

thread_local bool inside_a_loop = false;

// Long stretches first, since every one starts by filling the caches' way ahead; short
// ones last, so that no thread waits long for the others (guided self-scheduling,
// Polychronopoulos and Kuck 1987).
constexpr int64_t kSharesPerThread = 2;

// Half of a core's second-level cache.
constexpr int64_t kMostToFetch = 512 << 10;

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { Serve(); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // False when another thread's loop is running.
  bool TryRun(int64_t begin, int64_t end, int64_t grain, void (*call)(const void*, int64_t, int64_t),
              const void* function, PrefetchTarget next) {
    const std::unique_lock running(running_, std::try_to_lock);
    if (!running) return false;
    loop_.next.store(begin, std::memory_order_relaxed);
    loop_.end = end;
    loop_.grain = grain;
    loop_.shares = kSharesPerThread * size();
    loop_.call = call;
    loop_.function = function;
    loop_.next_read.store(next.data, std::memory_order_relaxed);
    loop_.next_read_bytes.store(next.bytes, std::memory_order_relaxed);
    loop_.error = nullptr;
    loop_.members.fetch_and(~Loop::kClosed, std::memory_order_release);
    generation_.fetch_add(1);
    if (sleeping_.load() > 0) {
      { const std::lock_guard lock(mutex_); }
      wake_.notify_all();
    }
    inside_a_loop = true;
    loop_.Work();
    inside_a_loop = false;
    loop_.members.fetch_or(Loop::kClosed, std::memory_order_acq_rel);
    while (loop_.members.load(std::memory_order_acquire) != Loop::kClosed) Pause();
    if (loop_.error) std::rethrow_exception(loop_.error);
    return true;
  }

 private:
  void Serve() {
    inside_a_loop = true;
    for (uint64_t seen = 0; (seen = WaitForLoop(seen)) != 0;) {
      if ((loop_.members.fetch_add(1, std::memory_order_acquire) & Loop::kClosed) == 0) loop_.Work();
      loop_.members.fetch_sub(1, std::memory_order_release);
      PrefetchNext(seen);
    }
  }

  // Until the next loop begins. The loop that said what comes next may be over; what
  // is asked for here is only a hint to the caches, whatever it has become.
  void PrefetchNext(uint64_t seen) {
    const uint8_t* data = loop_.next_read.load(std::memory_order_relaxed);
    const int64_t bytes = std::min(loop_.next_read_bytes.load(std::memory_order_relaxed), kMostToFetch);
    constexpr int64_t kStep = 1024;
    for (int64_t i = 0; i < bytes && generation_.load(std::memory_order_relaxed) == seen; i += kStep) {
      for (int64_t line = i; line < i + kStep; line += 64) __builtin_prefetch(data + line, 0, 2);
    }
  }

  // Spins for as long as the pause between two products lasts, then sleeps. Returns
  // the new generation; 0 when stopping.
  uint64_t WaitForLoop(uint64_t seen) {
    constexpr int kSpins = 4000;
    uint64_t now = generation_.load();
    for (int i = 0; i < kSpins && now == seen; ++i) {
      Pause();
      now = generation_.load();
    }
    if (now == seen) {
      std::unique_lock lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return (now = generation_.load()) != seen; });
      sleeping_.fetch_sub(1);
    }
    return stopping_.load() ? 0 : now;
  }

  std::mutex running_;  // held by the thread whose loop runs
  Loop loop_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;  // last: they use all of the above
};

int DefaultThreads() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

std::mutex pool_mutex;
std::shared_ptr<Pool>& PoolSlot() {
  // Never destroyed: threads may outlive main's statics.
  static auto& slot = *new std::shared_ptr<Pool>();
  return slot;
}

std::shared_ptr<Pool> CurrentPool() {
  const std::lock_guard lock(pool_mutex);
  std::shared_ptr<Pool>& slot = PoolSlot();
  if (slot == nullptr) slot = std::make_shared<Pool>(DefaultThreads());
  return slot;
}

}  // namespace

void SetThreadCount(int count) {
  const std::lock_guard lock(pool_mutex);
  std::shared_ptr<Pool>& slot = PoolSlot();
  if (slot == nullptr || slot->size() != count) slot = std::make_shared<Pool>(std::max(1, count));
}

int ThreadCount() { return CurrentPool()->size(); }

void RunParallel(int64_t begin, int64_t end, int64_t grain, void (*call)(const void*, int64_t, int64_t),
                 const void* function, PrefetchTarget next) {
  grain = std::max<int64_t>(1, grain);
  if (begin >= end) return;
  if (end - begin > grain && !inside_a_loop) {
    const std::shared_ptr<Pool> pool = CurrentPool();
    if (pool->size() > 1 && pool->TryRun(begin, end, grain, call, function, next)) return;
  }
  call(function, begin, end);
}

}  // namespace mechinterp::engine::kernels
