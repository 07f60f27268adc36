#ifndef TESTS_BENCHMARKS_MEASUREMENT_H_
#define TESTS_BENCHMARKS_MEASUREMENT_H_

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace mechinterp::benchmarks {

using Clock = std::chrono::steady_clock;

// Seconds since `start`.
double SecondsSince(Clock::time_point start);

// NaN when empty.
double Median(std::vector<double> values);

// What several repetitions of a benchmark measured, by name. Machines are noisy:
// a repetition measures ours and the peer's in turn, ratios are taken within a
// repetition, and medians are what counts. Not thread-safe.
class Measurements {
 public:
  // One value of one repetition. Names are printed in the order they came.
  void Add(const std::string& name, const std::string& unit, double value);
  // ours / theirs; nothing where theirs is not positive.
  void AddRatio(const std::string& name, double ours, double theirs);
  // Median, smallest and largest of each name.
  void Print(std::ostream& out) const;

 private:
  struct Series {
    std::string name;
    std::string unit;
    std::vector<double> values;
  };
  std::vector<Series> series_;
};

// Most bytes of memory that this process has held at any time, the pages of mapped
// files included.
int64_t PeakResidentMemory();
// The same of the finished child processes; 0 when there was none. Linux counts
// what the child shared with this process until it started its own program, so only
// what exceeds PeakResidentMemory is known to be the child's.
int64_t PeakResidentMemoryOfChildren();

std::string FormatBytes(int64_t bytes);  // "6.41 GB"

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_MEASUREMENT_H_
