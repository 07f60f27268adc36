#ifndef SERVICES_ENGINE_KERNELS_PARALLEL_H_
#define SERVICES_ENGINE_KERNELS_PARALLEL_H_

#include <cstdint>

namespace mechinterp::engine::kernels {

// The one pool of threads that the engine computes with. libtorch's own is not used
// on the CPU: its parallel loops are only parallel in code compiled for OpenMP, and
// two pools that spin against each other halve the speed of both.

// Threads that a loop uses, the caller's among them; at least 1. Not while a loop
// runs.
void SetThreadCount(int count);
int ThreadCount();

// Memory that the caller will have read next. Threads that have nothing left to do in
// a loop ask their caches for its beginning, so that the memory is not idle until the
// next loop starts.
struct PrefetchTarget {
  const uint8_t* data = nullptr;
  int64_t bytes = 0;
};

// Calls function(first, last) for stretches of [begin, end) that cover it, each of
// at least `grain` but the last, from several threads; returns when all are done.
// Idle threads take the next stretch, so that a slow core (an efficiency core, or
// one that is also used otherwise) does not hold up the others. Loops inside loops,
// and loops while another thread's is running, run in their caller's thread. The
// first exception thrown is thrown again here. Thread-safe.
template <typename Function>
void ParallelFor(int64_t begin, int64_t end, int64_t grain, const Function& function,
                 PrefetchTarget next = {});

// ParallelFor, with the function's type taken away.
void RunParallel(int64_t begin, int64_t end, int64_t grain,
                 void (*call)(const void* function, int64_t first, int64_t last), const void* function,
                 PrefetchTarget next);

template <typename Function>
void ParallelFor(int64_t begin, int64_t end, int64_t grain, const Function& function, PrefetchTarget next) {
  RunParallel(
      begin, end, grain,
      [](const void* f, int64_t first, int64_t last) { (*static_cast<const Function*>(f))(first, last); },
      &function, next);
}

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_PARALLEL_H_
