#include "tests/benchmarks/matrices.h"

#include <algorithm>
#include <random>

#include "services/engine/kernels/quantize.h"

namespace mechinterp::benchmarks {

using engine::NumberFormat;
using engine::kernels::PackedMatrix;

std::vector<float> RandomValues(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

int CopiesToRotate(int64_t bytes) { return static_cast<int>((kRotatedBytes + bytes - 1) / bytes); }

PackedMatrix EmptyMatrix(const MatrixSpec& spec) {
  PackedMatrix matrix = engine::kernels::EmptyMatrix(spec.format, spec.compute, spec.out, spec.in);
  engine::kernels::Allocate(matrix);
  return matrix;
}

PackedMatrix RandomMatrix(const MatrixSpec& spec) {
  PackedMatrix matrix = EmptyMatrix(spec);
  const std::vector<float> rows = RandomValues(engine::kernels::kPanelOutputs * spec.in, 1);
  engine::kernels::PackPanel(matrix, 0, rows.data());
  const int64_t bytes = matrix.panel_bytes();
  for (int64_t panel = 1; panel < matrix.panels(); ++panel) {
    std::copy_n(matrix.data.data(), bytes, matrix.data.data() + panel * bytes);
  }
  return matrix;
}

}  // namespace mechinterp::benchmarks
