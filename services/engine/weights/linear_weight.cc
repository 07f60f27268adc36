#include "services/engine/weights/linear_weight.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/nf4.h"
#include "services/engine/checkpoint/stored_values.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/weights/device_matrix.h"
#include "services/engine/weights/nf4_quantize.h"

namespace mechinterp::engine {
namespace {

using kernels::ComputeType;
using kernels::kPanelOutputs;
using kernels::PackedMatrix;
using kernels::WeightFormat;

absl::Status NotFinite(const Checkpoint& checkpoint, const std::string& name) {
  return absl::InvalidArgumentError(
      absl::StrCat(checkpoint.directory(), ": tensor '", name, "' holds a value that is not finite"));
}

PackedMatrix Empty(int64_t out, int64_t in, WeightFormat format, ComputeType compute) {
  PackedMatrix matrix;
  matrix.format = format;
  matrix.compute = compute;
  matrix.out = out;
  matrix.in = in;
  if (format == WeightFormat::kNf4) matrix.group = kernels::Nf4Group(in);
  return matrix;
}

template <typename Function>
void ForEachPanel(const PackedMatrix& matrix, Function&& function) {
  kernels::ParallelFor(0, matrix.panels(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) function(panel);
  });
}

void PackRows(PackedMatrix& matrix, int64_t panel, const float* rows) {
  if (matrix.format == WeightFormat::kInt8) {
    kernels::PackInt8Panel(matrix, panel, rows);
  } else {
    kernels::PackFloatPanel(matrix, panel, rows);
  }
}

// False when a value is not finite.
bool PackStored(const StoredValues& values, PackedMatrix& matrix) {
  std::atomic<bool> finite = true;
  ForEachPanel(matrix, [&](int64_t panel) {
    const int64_t first = panel * kPanelOutputs;
    const int64_t count = std::min<int64_t>(kPanelOutputs, matrix.out - first);
    std::vector<float> rows(count * matrix.in);
    if (!values.Read(first * matrix.in, count * matrix.in, rows.data())) finite = false;
    PackRows(matrix, panel, rows.data());
  });
  return finite;
}

void PackNf4(const Nf4Matrix& source, PackedMatrix& matrix) {
  // In half precision the code is rounded, not each product of code and scale: the
  // scale comes in after the sum.
  std::copy(source.code.begin(), source.code.end(), matrix.code.begin());
  kernels::RoundCode(matrix);
  const int64_t panel_values = kPanelOutputs * matrix.in;
  ForEachPanel(matrix, [&](int64_t panel) {
    kernels::PackNf4Panel(matrix, panel, source.codes.data() + panel * panel_values / 2,
                          source.absmax.data() + panel * panel_values / kernels::kNf4Block);
  });
}

void PackDequantized(const Nf4Matrix& source, PackedMatrix& matrix) {
  const HostTensor values = Dequantize(source);
  ForEachPanel(matrix, [&](int64_t panel) {
    PackRows(matrix, panel, values.values.data() + panel * kPanelOutputs * matrix.in);
  });
}

LinearWeight PackFromNf4(const Nf4Matrix& source, const MatrixFormat& format) {
  const int64_t out = source.shape[0], in = source.shape[1];
  LinearWeight weight{Empty(out, in, HeldFormat(in, format), format.compute), nullptr};
  kernels::Allocate(weight.matrix);
  if (weight.matrix.format == WeightFormat::kNf4) {
    PackNf4(source, weight.matrix);
  } else {
    PackDequantized(source, weight.matrix);
  }
  return weight;
}

LinearWeight OnDevice(int64_t out, int64_t in, const MatrixFormat& format, DeviceMatrix matrix) {
  const bool as_values = !matrix.pieces.empty();
  const WeightFormat held =
      as_values ? UnquantizedFormat(DType::kF32, format.compute, format.device) : format.format;
  return {Empty(out, in, held, format.compute), std::make_shared<DeviceMatrix>(std::move(matrix))};
}

// As int8 or unquantized; nothing when a value is not finite.
std::optional<LinearWeight> Upload(ReadRows read, int64_t out, int64_t in, const MatrixFormat& format) {
  const at::Device device = TorchDevice(format.device);
  std::optional<DeviceMatrix> matrix = format.format == WeightFormat::kInt8
                                           ? UploadInt8(read, out, in, device)
                                           : UploadValues(read, out, in, format.compute, device);
  if (!matrix) return std::nullopt;
  return OnDevice(out, in, format, *std::move(matrix));
}

LinearWeight FromNf4(const Nf4Matrix& source, const MatrixFormat& format) {
  if (!format.device.UsesLibtorch()) return PackFromNf4(source, format);
  const int64_t out = source.shape[0], in = source.shape[1];
  if (format.format == WeightFormat::kNf4 && IsStandardNf4(source)) {
    return OnDevice(out, in, format, UploadNf4(source, TorchDevice(format.device)));
  }
  const HostTensor values = Dequantize(source);
  return *Upload(
      [&](int64_t first, int64_t count, float* rows) {
        std::copy_n(values.values.begin() + first * in, count * in, rows);
        return true;
      },
      out, in, format);
}

}  // namespace

WeightFormat UnquantizedFormat(DType stored, ComputeType compute, const Device& device) {
  if (device.UsesLibtorch() && compute == ComputeType::kFloat32) return WeightFormat::kFloat32;
  if (device.UsesLibtorch()) return WeightFormat::kBFloat16;
  if (compute == ComputeType::kBFloat16) return WeightFormat::kBFloat16;
  return stored == DType::kBF16 && compute == ComputeType::kFloat32 ? WeightFormat::kBFloat16
                                                                    : WeightFormat::kFloat32;
}

absl::StatusOr<LinearWeight> LoadLinear(const Checkpoint& checkpoint, const std::string& name, int64_t out,
                                        int64_t in, const MatrixFormat& format) {
  const int64_t shape[] = {out, in};
  if (IsNf4(checkpoint, name)) {
    ABSTRACT_ASSIGN_OR_RETURN(const Nf4Matrix source, ReadNf4(checkpoint, name, shape));
    LinearWeight weight = FromNf4(source, format);
    ReleasePages(*checkpoint.Find(name));
    return weight;
  }
  ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Tensor(name, shape));
  if (format.format == WeightFormat::kNf4) {
    absl::StatusOr<Nf4Matrix> quantized = QuantizeToNf4(view, format.double_quantization);
    if (!quantized.ok()) return NotFinite(checkpoint, name);
    ReleasePages(view);
    return FromNf4(*quantized, format);
  }
  const StoredValues values(view);
  if (format.device.UsesLibtorch()) {
    std::optional<LinearWeight> weight = Upload(
        [&](int64_t first, int64_t count, float* rows) { return values.Read(first * in, count * in, rows); },
        out, in, format);
    if (!weight) return NotFinite(checkpoint, name);
    ReleasePages(view);
    return *std::move(weight);
  }
  LinearWeight weight{Empty(out, in, format.format, format.compute), nullptr};
  kernels::Allocate(weight.matrix);
  if (!PackStored(values, weight.matrix)) return NotFinite(checkpoint, name);
  ReleasePages(view);
  return weight;
}

int64_t LinearWeight::bytes() const { return device != nullptr ? device->bytes() : matrix.bytes(); }

WeightFormat HeldFormat(int64_t in, const MatrixFormat& format) {
  if (format.format != WeightFormat::kNf4 || kernels::CanPackNf4(in) || format.device.UsesLibtorch()) {
    return format.format;
  }
  return UnquantizedFormat(DType::kF32, format.compute, format.device);
}

int64_t HeldBytes(int64_t out, int64_t in, const MatrixFormat& format) {
  const PackedMatrix matrix = Empty(out, in, HeldFormat(in, format), format.compute);
  return matrix.panels() * matrix.panel_bytes();
}

}  // namespace mechinterp::engine
