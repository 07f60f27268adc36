#ifndef DATA_TRAINER_RANDOM_H_
#define DATA_TRAINER_RANDOM_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "services/common/hash.h"

namespace mechinterp::trainer {

// SplitMix64 with distributions of our own: those of the standard library differ
// between implementations, and the corpus must be the same everywhere for one seed. A plain value; not
// thread-safe.
class Random {
 public:
  explicit Random(uint64_t seed) : bits_(seed) {}

  uint64_t Next() { return bits_.Next(); }
  // Uniform in [0, 1).
  double Real() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
  // Uniform in [0, count); `count` must be positive.
  size_t Index(size_t count) { return static_cast<size_t>(Real() * static_cast<double>(count)); }
  bool Chance(double probability) { return Real() < probability; }
  // Standard normal (Box-Muller; the second value is not kept).
  double Normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - Real()));
    return radius * std::cos(6.283185307179586 * Real());
  }
  template <typename T>
  const T& Choose(const std::vector<T>& items) {
    return items[Index(items.size())];
  }
  template <typename T>
  void Shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[Index(i)]);
  }

 private:
  SplitMix64 bits_;
};

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_RANDOM_H_
