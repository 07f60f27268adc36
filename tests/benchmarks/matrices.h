#ifndef TESTS_BENCHMARKS_MATRICES_H_
#define TESTS_BENCHMARKS_MATRICES_H_

#include <string>
#include <vector>

#include "services/engine/kernels/matrix.h"

namespace mechinterp::benchmarks {

struct MatrixSpec {
  engine::NumberFormat format;
  engine::NumberFormat compute;
  int64_t in = 0;
  int64_t out = 0;

  friend bool operator==(const MatrixSpec&, const MatrixSpec&) = default;
};

// `count` normally distributed values of standard deviation 0.02, from a seed.
std::vector<float> RandomValues(int64_t count, unsigned seed);

// Weights that the caches do not hold: copies of a matrix that are gone through in
// turn, at least kRotatedBytes together.
inline constexpr int64_t kRotatedBytes = int64_t{256} << 20;
int CopiesToRotate(int64_t bytes);

// Packs a random matrix. All its panels hold the same values: a product's time does
// not depend on them, and a large matrix is made quickly.
engine::kernels::PackedMatrix RandomMatrix(const MatrixSpec& spec);

// With memory, of undefined contents.
engine::kernels::PackedMatrix EmptyMatrix(const MatrixSpec& spec);

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_MATRICES_H_
