#ifndef SERVICES_MODEL_HEAP_TRIMMER_H_
#define SERVICES_MODEL_HEAP_TRIMMER_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace mechinterp {

// Gives memory back to the system after large requests: glibc keeps what was freed, gigabytes
// after a few captures. Elsewhere it does nothing. Thread-safe.
class HeapTrimmer {
 public:
  HeapTrimmer();
  ~HeapTrimmer();

  // What requests in progress have reserved, when that changes. Quick: the work is done on a
  // thread of its own, a moment after the last large reservation has gone.
  void ReservedChanged(int64_t bytes);

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t reserved_ = 0;
  int64_t given_back_ = 0;  // since the last trimming
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

// How the allocator is to treat large blocks: those of 4 MiB and more lie apart, and go back to
// the system when they are freed. Call first thing in main.
void PrepareHeap();

}  // namespace mechinterp

#endif  // SERVICES_MODEL_HEAP_TRIMMER_H_
