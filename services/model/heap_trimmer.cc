#include "services/model/heap_trimmer.h"

#include <chrono>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace mechinterp {
namespace {

// Less is not worth the milliseconds that it takes.
constexpr int64_t kWorthwhileBytes = int64_t{16} << 20;
constexpr std::chrono::milliseconds kMoment(300);

}  // namespace

HeapTrimmer::HeapTrimmer() : thread_([this] { Loop(); }) {}

HeapTrimmer::~HeapTrimmer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void HeapTrimmer::ReservedChanged(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes < reserved_) given_back_ += reserved_ - bytes;
  reserved_ = bytes;
  if (given_back_ >= kWorthwhileBytes) changed_.notify_one();
}

void HeapTrimmer::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || given_back_ >= kWorthwhileBytes; });
    // Others of a crowd end at the same time.
    if (changed_.wait_for(lock, kMoment, [this] { return stopping_; })) return;
    given_back_ = 0;
    lock.unlock();
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    lock.lock();
  }
}

void PrepareHeap() {
#ifdef __GLIBC__
  // Set once, or the threshold grows to 32 MiB with the first large block that is freed.
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_ARENA_MAX, 8);
#endif
}

}  // namespace mechinterp
