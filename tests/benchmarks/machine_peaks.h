#ifndef TESTS_BENCHMARKS_MACHINE_PEAKS_H_
#define TESTS_BENCHMARKS_MACHINE_PEAKS_H_

#include "services/engine/kernels/buffer.h"

namespace mechinterp::benchmarks {

// What this machine can do at most with so many threads, measured: the yardstick
// beside which speeds are printed, since clocks and neighbours change from one
// minute to the next. Each call measures anew, for about a tenth of a second. Not
// thread-safe.
class PeakMeter {
 public:
  // Allocates what is read for the bandwidth, 1 GiB: of 256 MiB, a cache of 32 MiB was
  // seen to keep a tenth.
  explicit PeakMeter(int threads);

  int threads() const { return threads_; }
  // Bytes a second, read from memory sequentially, each thread its part, over 5 GB:
  // as much as one token of an 8B model reads, since a few milliseconds can be much
  // faster than what lasts. The better of reading in one stream and in four.
  double ReadBandwidth();
  // Floating-point operations a second (a multiply-add is two) in fp32 fused
  // multiply-adds on registers; the best of several passes.
  double Float32Peak();
  // The same in products of bf16 pairs or tiles, whichever are faster, summed in fp32; 0
  // where the machine has no such instruction or this program does not know it.
  double BFloat16Peak();

 private:
  int threads_;
  engine::kernels::Buffer memory_;
};

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_MACHINE_PEAKS_H_
