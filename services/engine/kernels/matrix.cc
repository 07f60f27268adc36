#include "services/engine/kernels/matrix.h"

#include <numeric>

#include "services/engine/kernels/quantize.h"
#include "services/engine/kernels/weight_kernel.h"

namespace mechinterp::engine::kernels {
namespace {

int GroupOf(NumberFormat format, int64_t in) {
  return format == NumberFormat::kNf4 ? static_cast<int>(std::gcd<int64_t>(in, kNf4Block)) : kMaxGroup;
}

}  // namespace

int64_t PackedMatrix::group_bytes() const {
  const NumberFormatInfo& info = InfoOf(format);
  return int64_t{group} * kPanelOutputs * info.bits / 8 + (info.scaled ? kScaleBytes : 0);
}

bool CanHold(NumberFormat format, int64_t in) {
  return InfoOf(format).kernel != nullptr && GroupOf(format, in) % 8 == 0;
}

PackedMatrix EmptyMatrix(NumberFormat format, NumberFormat compute, int64_t out, int64_t in) {
  PackedMatrix matrix;
  matrix.format = format;
  matrix.compute = compute;
  matrix.out = out;
  matrix.in = in;
  matrix.group = GroupOf(format, in);
  if (format == NumberFormat::kNf4) SetCode(matrix, kNf4Code);
  return matrix;
}

int64_t PackedBytes(NumberFormat format, int64_t out, int64_t in) {
  const PackedMatrix matrix = EmptyMatrix(format, NumberFormat::kFloat32, out, in);
  return matrix.panels() * matrix.panel_bytes();
}

void Allocate(PackedMatrix& matrix) { matrix.data = Buffer(matrix.panels() * matrix.panel_bytes()); }

void PackPanel(PackedMatrix& matrix, int64_t panel, const float* rows) {
  InfoOf(matrix.format).kernel->pack(matrix, panel, rows);
}

void SetCode(PackedMatrix& matrix, const std::array<float, 16>& code) {
  for (size_t i = 0; i < code.size(); ++i) matrix.code[i] = RoundTo(matrix.compute, code[i]);
}

}  // namespace mechinterp::engine::kernels
