#include "services/engine/weights/linear_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
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

using kernels::kPanelOutputs;
using kernels::PackedMatrix;

absl::Status NotFinite(const Checkpoint& checkpoint, const std::string& name, NumberFormat compute) {
  return absl::InvalidArgumentError(absl::StrCat(
      checkpoint.directory(), ": tensor '", name, "' holds a value that is not finite",
      compute == NumberFormat::kFloat16 ? " in fp16, which products are computed in (--compute-dtype)" : ""));
}

// Whether values are finite in the type that they are multiplied in.
bool AreFiniteIn(NumberFormat compute, const float* values, int64_t count) {
  return compute != NumberFormat::kFloat16 || std::all_of(values, values + count, [](float value) {
           return std::isfinite(RoundTo(NumberFormat::kFloat16, value));
         });
}

template <typename Function>
void ForEachPanel(const PackedMatrix& matrix, Function&& function) {
  kernels::ParallelFor(0, matrix.panels(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) function(panel);
  });
}

// False when a value is not finite.
bool PackStored(ReadRows read, PackedMatrix& matrix) {
  std::atomic<bool> finite = true;
  ForEachPanel(matrix, [&](int64_t panel) {
    const int64_t first = panel * kPanelOutputs;
    const int64_t count = std::min<int64_t>(kPanelOutputs, matrix.out - first);
    std::vector<float> rows(count * matrix.in);
    if (!read(first, count, rows.data())) finite = false;
    kernels::PackPanel(matrix, panel, rows.data());
  });
  return finite;
}

void PackNf4(const Nf4Matrix& source, PackedMatrix& matrix) {
  kernels::SetCode(matrix, source.code);
  const int64_t panel_values = kPanelOutputs * matrix.in;
  ForEachPanel(matrix, [&](int64_t panel) {
    kernels::PackNf4Panel(matrix, panel, source.codes.data() + panel * panel_values / 2,
                          source.absmax.data() + panel * panel_values / kernels::kNf4Block);
  });
}

void PackDequantized(const Nf4Matrix& source, PackedMatrix& matrix) {
  const HostTensor values = Dequantize(source);
  ForEachPanel(matrix, [&](int64_t panel) {
    kernels::PackPanel(matrix, panel, values.values.data() + panel * kPanelOutputs * matrix.in);
  });
}

LinearWeight PackFromNf4(const Nf4Matrix& source, const MatrixFormat& format) {
  const int64_t out = source.shape[0], in = source.shape[1];
  LinearWeight weight{kernels::EmptyMatrix(HeldFormat(in, format), format.compute, out, in), nullptr, {}};
  kernels::Allocate(weight.matrix);
  if (weight.matrix.format == NumberFormat::kNf4) {
    PackNf4(source, weight.matrix);
  } else {
    PackDequantized(source, weight.matrix);
  }
  return weight;
}

LinearWeight OnDevice(int64_t out, int64_t in, const MatrixFormat& format, DeviceMatrix matrix) {
  const NumberFormat held = matrix.pieces.empty() ? format.format : format.compute;
  return {kernels::EmptyMatrix(held, format.compute, out, in),
          std::make_shared<DeviceMatrix>(std::move(matrix)),
          {}};
}

// As int8 or unquantized; nothing when a value is not finite.
std::optional<LinearWeight> Upload(ReadRows read, int64_t out, int64_t in, const MatrixFormat& format) {
  const at::Device device = TorchDevice(format.device);
  std::optional<DeviceMatrix> matrix = format.format == NumberFormat::kInt8
                                           ? UploadInt8(read, out, in, device)
                                           : UploadValues(read, out, in, format.compute, device);
  if (!matrix) return std::nullopt;
  return OnDevice(out, in, format, *std::move(matrix));
}

LinearWeight FromNf4(const Nf4Matrix& source, const MatrixFormat& format) {
  if (!format.device.UsesLibtorch()) return PackFromNf4(source, format);
  const int64_t out = source.shape[0], in = source.shape[1];
  if (format.format == NumberFormat::kNf4 && IsStandardNf4(source)) {
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

NumberFormat UnquantizedFormat(NumberFormat stored, NumberFormat compute, const Device& device) {
  if (device.UsesLibtorch()) return compute;
  if (compute != NumberFormat::kFloat32) return compute;
  return InfoOf(stored).kernel != nullptr ? stored : NumberFormat::kFloat32;
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
  if (format.format == NumberFormat::kNf4 || format.through_nf4) {
    absl::StatusOr<Nf4Matrix> quantized = QuantizeToNf4(view, format.double_quantization);
    if (!quantized.ok()) return NotFinite(checkpoint, name, NumberFormat::kFloat32);
    ReleasePages(view);
    return FromNf4(*quantized, format);
  }
  const StoredValues values(view);
  const auto read = [&](int64_t first, int64_t count, float* rows) {
    return values.Read(first * in, count * in, rows) && AreFiniteIn(format.compute, rows, count * in);
  };
  if (format.device.UsesLibtorch()) {
    std::optional<LinearWeight> weight = Upload(read, out, in, format);
    if (!weight) return NotFinite(checkpoint, name, format.compute);
    ReleasePages(view);
    return *std::move(weight);
  }
  LinearWeight weight{kernels::EmptyMatrix(format.format, format.compute, out, in), nullptr, {}};
  kernels::Allocate(weight.matrix);
  if (!PackStored(read, weight.matrix)) return NotFinite(checkpoint, name, format.compute);
  ReleasePages(view);
  return weight;
}

int64_t LinearWeight::bytes() const { return device != nullptr ? device->bytes() : matrix.bytes(); }

NumberFormat HeldFormat(int64_t in, const MatrixFormat& format) {
  if (format.device.UsesLibtorch() || kernels::CanHold(format.format, in)) return format.format;
  return UnquantizedFormat(NumberFormat::kFloat32, format.compute, format.device);
}

int64_t HeldBytes(int64_t out, int64_t in, const MatrixFormat& format) {
  return kernels::PackedBytes(HeldFormat(in, format), out, in);
}

}  // namespace mechinterp::engine
