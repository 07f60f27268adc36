#include "tests/benchmarks/matrices.h"

#include <algorithm>
#include <random>

#include "services/engine/kernels/quantize.h"

namespace mechinterp::benchmarks {

using engine::kernels::ComputeType;
using engine::kernels::PackedMatrix;
using engine::kernels::WeightFormat;

std::string FormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFloat32:
      return "fp32";
    case WeightFormat::kBFloat16:
      return "bf16";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kNf4:
      return "nf4";
  }
  return "";
}

std::string ComputeName(ComputeType compute) {
  switch (compute) {
    case ComputeType::kFloat32:
      return "fp32";
    case ComputeType::kBFloat16:
      return "bf16";
    case ComputeType::kFloat16:
      return "fp16";
  }
  return "";
}

std::vector<float> RandomValues(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

int CopiesToRotate(int64_t bytes) { return static_cast<int>((kRotatedBytes + bytes - 1) / bytes); }

PackedMatrix EmptyMatrix(const MatrixSpec& spec) {
  PackedMatrix matrix;
  matrix.format = spec.format;
  matrix.compute = spec.compute;
  matrix.out = spec.out;
  matrix.in = spec.in;
  if (spec.format == WeightFormat::kNf4) {
    matrix.group = engine::kernels::Nf4Group(spec.in);
    matrix.code = engine::kernels::kNf4Code;
    engine::kernels::RoundCode(matrix);
  }
  engine::kernels::Allocate(matrix);
  return matrix;
}

void PackPanel(PackedMatrix& matrix, int64_t panel, const std::vector<float>& rows) {
  if (matrix.format == WeightFormat::kInt8) {
    engine::kernels::PackInt8Panel(matrix, panel, rows.data());
  } else if (matrix.format == WeightFormat::kNf4) {
    std::vector<uint8_t> codes(rows.size() / 2);
    std::vector<float> absmax(rows.size() / engine::kernels::kNf4Block);
    engine::kernels::QuantizeNf4(rows.data(), engine::kernels::SourceType::kFloat32,
                                 static_cast<int64_t>(rows.size()), codes.data(), absmax.data());
    engine::kernels::PackNf4Panel(matrix, panel, codes.data(), absmax.data());
  } else {
    engine::kernels::PackFloatPanel(matrix, panel, rows.data());
  }
}

PackedMatrix RandomMatrix(const MatrixSpec& spec) {
  PackedMatrix matrix = EmptyMatrix(spec);
  const std::vector<float> rows = RandomValues(engine::kernels::kPanelOutputs * spec.in, 1);
  PackPanel(matrix, 0, rows);
  const int64_t bytes = matrix.panel_bytes();
  for (int64_t panel = 1; panel < matrix.panels(); ++panel) {
    std::copy_n(matrix.data.data(), bytes, matrix.data.data() + panel * bytes);
  }
  return matrix;
}

}  // namespace mechinterp::benchmarks
