#include "services/engine/weights/device_matrix.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "services/engine/device/device.h"
#include "services/engine/device/transfer.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/kernels/quantize.h"

namespace mechinterp::engine {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kRowsAtATime = 1024;

// On the host first, then in one piece, unconverted, to the device.
template <typename T>
at::Tensor Upload(const T* data, at::IntArrayRef shape, at::ScalarType type, const at::Device& device) {
  at::Tensor host = at::empty(shape, type);
  std::memcpy(host.data_ptr(), data, host.nbytes());
  return ToDevice(host, device);
}

}  // namespace

int64_t DeviceMatrix::bytes() const {
  int64_t total = 0;
  for (const at::Tensor& piece : pieces) total += static_cast<int64_t>(piece.nbytes());
  if (pieces.empty()) total = static_cast<int64_t>(quantized.weights.nbytes() + quantized.scales.nbytes());
  return total;
}

at::Device TorchDevice(const Device& device) {
  switch (device.kind) {
    case DeviceKind::kMps:
      return {at::kMPS, 0};
    case DeviceKind::kCuda:
      return {at::kCUDA, 0};
    case DeviceKind::kCpu:
      break;
  }
  return {at::kCPU};
}

at::ScalarType TorchType(NumberFormat type) {
  switch (type) {
    case NumberFormat::kBFloat16:
      return at::kBFloat16;
    case NumberFormat::kFloat16:
      return at::kHalf;
    default:
      return at::kFloat;
  }
}

bool IsStandardNf4(const Nf4Matrix& source) { return source.code == kernels::kNf4Code; }

DeviceMatrix UploadNf4(const Nf4Matrix& source, const at::Device& device) {
  const auto codes = static_cast<int64_t>(source.codes.size());
  const auto blocks = static_cast<int64_t>(source.absmax.size());
  DeviceMatrix matrix;
  matrix.quantized = {NumberFormat::kNf4, source.shape[0], source.shape[1],
                      Upload(source.codes.data(), {codes}, at::kByte, device),
                      Upload(source.absmax.data(), {blocks}, at::kFloat, device)};
  return matrix;
}

std::optional<DeviceMatrix> UploadInt8(ReadRows read, int64_t out, int64_t in, const at::Device& device) {
  const int64_t blocks = (in + kBlock - 1) / kBlock;
  const at::Tensor weights = at::empty({out * in}, at::kChar), scales = at::empty({out * blocks}, at::kFloat);
  std::vector<float> rows(std::min(out, kRowsAtATime) * in);
  for (int64_t first = 0; first < out; first += kRowsAtATime) {
    const int64_t count = std::min(kRowsAtATime, out - first);
    if (!read(first, count, rows.data())) return std::nullopt;
    kernels::ParallelFor(0, count, 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        kernels::QuantizeInt8(rows.data() + row * in, in, kBlock,
                              weights.data_ptr<int8_t>() + (first + row) * in,
                              scales.data_ptr<float>() + (first + row) * blocks);
      }
    });
  }
  DeviceMatrix matrix;
  matrix.quantized = {NumberFormat::kInt8, out, in, ToDevice(weights, device), ToDevice(scales, device)};
  return matrix;
}

std::optional<DeviceMatrix> UploadValues(ReadRows read, int64_t out, int64_t in, NumberFormat compute,
                                         const at::Device& device) {
  DeviceMatrix matrix;
  at::Tensor rows = at::empty({std::min(out, kRowsAtATime), in}, at::kFloat);
  for (int64_t piece = 0; piece < out; piece += DeviceMatrix::kMaxPieceRows) {
    const int64_t piece_rows = std::min(DeviceMatrix::kMaxPieceRows, out - piece);
    const at::Tensor host = at::empty({piece_rows, in}, TorchType(compute));
    for (int64_t first = 0; first < piece_rows; first += kRowsAtATime) {
      const int64_t count = std::min(kRowsAtATime, piece_rows - first);
      if (!read(piece + first, count, rows.data_ptr<float>())) return std::nullopt;
      host.narrow(0, first, count).copy_(rows.narrow(0, 0, count));
    }
    matrix.pieces.push_back(ToDevice(host, device));
  }
  return matrix;
}

namespace {

// fp32 products of the operands as they are rounded, a few outputs at a time, since the
// weights are converted for it.
void MultiplyInFull(const at::Tensor& operand, const at::Tensor& piece, std::vector<at::Tensor>& parts) {
  constexpr int64_t kOutputs = 8192;
  const at::Tensor x = operand.to(at::kFloat);
  for (int64_t first = 0; first < piece.size(0); first += kOutputs) {
    const at::Tensor some = piece.narrow(0, first, std::min(kOutputs, piece.size(0) - first));
    parts.push_back(at::linear(x, some.to(at::kFloat)));
  }
}

// fp32 [n, out] of a rounded operand.
at::Tensor MultiplyRounded(const at::Tensor& operand, const DeviceMatrix& w, bool full_precision,
                           metal::KernelRunner* runner) {
  if (w.pieces.empty()) {
    // The quantized products have the type of their operands, or fp32.
    absl::StatusOr<at::Tensor> product =
        metal::Linear(full_precision ? operand.to(at::kFloat) : operand, w.quantized, runner);
    if (!product.ok()) throw std::runtime_error(std::string(product.status().message()));
    return product->to(at::kFloat);
  }
  std::vector<at::Tensor> parts;
  for (const at::Tensor& piece : w.pieces) {
    if (full_precision && piece.scalar_type() != at::kFloat) {
      MultiplyInFull(operand, piece, parts);
    } else {
      parts.push_back(at::linear(operand, piece).to(at::kFloat));
    }
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

}  // namespace

DeviceOperand RoundOperand(const at::Tensor& x, NumberFormat compute) {
  if (compute != NumberFormat::kFloat16) return {x.to(TorchType(compute)), {}};
  const at::Tensor divisor = x.abs().amax({1}, true).clamp_min(std::numeric_limits<float>::min());
  return {x.div(divisor).to(at::kHalf), divisor};
}

namespace {

// Rows [first, first + count) of a matrix in the type given, contiguous; of at most one piece.
at::Tensor RowsOf(const DeviceMatrix& w, int64_t first, int64_t count, at::ScalarType type,
                  metal::KernelRunner* runner) {
  if (!w.pieces.empty()) {
    return w.pieces[first / DeviceMatrix::kMaxPieceRows].narrow(0, first % DeviceMatrix::kMaxPieceRows,
                                                                count);
  }
  absl::StatusOr<at::Tensor> rows = metal::Dequantize(w.quantized, first, count, type, runner);
  if (!rows.ok()) throw std::runtime_error(std::string(rows.status().message()));
  return *std::move(rows);
}

}  // namespace

at::Tensor MultiplyTransposedOnDevice(const at::Tensor& gradient, const DeviceMatrix& w, int64_t first_output,
                                      NumberFormat compute, metal::KernelRunner* runner) {
  constexpr int64_t kOutputs = 4096;  // at a time; divides a piece's rows
  const DeviceOperand operand = RoundOperand(gradient, compute);
  at::Tensor sum;
  for (int64_t done = 0; done < gradient.size(1);) {
    const int64_t first = first_output + done;
    const int64_t count = std::min(gradient.size(1) - done, kOutputs - first % kOutputs);
    const at::Tensor part = at::mm(operand.values.narrow(1, done, count).contiguous(),
                                   RowsOf(w, first, count, operand.values.scalar_type(), runner).contiguous())
                                .to(at::kFloat);
    sum = sum.defined() ? sum.add(part) : part;
    done += count;
  }
  return operand.divisor.defined() ? sum.mul(operand.divisor) : sum;
}

at::Tensor MultiplyOnDevice(const DeviceOperand& x, const DeviceMatrix& w, bool full_precision,
                            metal::KernelRunner* runner) {
  const at::Tensor product = MultiplyRounded(x.values, w, full_precision, runner);
  return x.divisor.defined() ? product.mul(x.divisor) : product;
}

}  // namespace mechinterp::engine
