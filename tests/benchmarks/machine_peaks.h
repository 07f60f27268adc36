#ifndef TESTS_BENCHMARKS_MACHINE_PEAKS_H_
#define TESTS_BENCHMARKS_MACHINE_PEAKS_H_

#include "services/model/engine/kernels/buffer.h"

namespace mechinterp::benchmarks {

// What this machine can do at most with so many threads, measured: the yardstick
// beside which speeds are printed, since clocks and neighbours change from one
// minute to the next. Each call measures anew, for about a tenth of a second, and
// returns the best of several passes. Not thread-safe.
class PeakMeter {
 public:
  // Allocates what is read for the bandwidth, 256 MiB: many times the caches.
  explicit PeakMeter(int threads);

  int threads() const { return threads_; }
  // Bytes a second, read from memory once, sequentially, each thread its part.
  double ReadBandwidth();
  // Floating-point operations a second (a multiply-add is two) in fp32 fused
  // multiply-adds on registers.
  double Float32Peak();
  // The same in products of bf16 pairs, summed in fp32; 0 where the machine has no
  // such instruction or this program does not know it.
  double BFloat16Peak();

 private:
  int threads_;
  engine::kernels::Buffer memory_;
};

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_MACHINE_PEAKS_H_
