#include "clients/lib/parallel.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace mechinterp {

absl::Status ParallelFor(int count, int concurrency, const std::function<absl::Status(int)>& work) {
  std::atomic<int> next = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  absl::Status first_error;
  const auto run = [&] {
    while (!failed) {
      const int index = next++;
      if (index >= count) return;
      if (absl::Status status = work(index); !status.ok()) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!failed.exchange(true)) first_error = status;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < std::min(count, concurrency); ++i) threads.emplace_back(run);
  run();
  for (std::thread& thread : threads) thread.join();
  return first_error;
}

}  // namespace mechinterp
