#include "services/model/engine/device/device_matrix.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "services/model/engine/device/device.h"
#include "services/model/engine/device/transfer.h"
#include "services/model/engine/kernels/parallel.h"
#include "services/model/engine/kernels/quantize.h"

namespace mechinterp::engine {
namespace {

constexpr int64_t kBlock = 64;
// MPS had errors in products with more outputs (pytorch issue 116769).
constexpr int64_t kMaxOutputs = 32768;

// On the host first, then in one piece, unconverted, to the device.
template <typename T>
at::Tensor Upload(const T* data, at::IntArrayRef shape, at::ScalarType type, const at::Device& device) {
  at::Tensor host = at::empty(shape, type);
  std::memcpy(host.data_ptr(), data, host.nbytes());
  return ToDevice(host, device);
}

}  // namespace

int64_t DeviceMatrix::bytes() const {
  if (values.defined()) return static_cast<int64_t>(values.nbytes());
  return static_cast<int64_t>(quantized.weights.nbytes() + quantized.scales.nbytes());
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

at::ScalarType TorchType(kernels::ComputeType type) {
  switch (type) {
    case kernels::ComputeType::kBFloat16:
      return at::kBFloat16;
    case kernels::ComputeType::kFloat16:
      return at::kHalf;
    case kernels::ComputeType::kFloat32:
      break;
  }
  return at::kFloat;
}

DeviceMatrix UploadNf4(const Nf4Matrix& source, kernels::ComputeType compute, const at::Device& device) {
  const int64_t out = source.shape[0], in = source.shape[1];
  if (source.code != kernels::kNf4Code) {
    return UploadValues(Dequantize(source).values, out, in, compute, device);
  }
  DeviceMatrix matrix;
  matrix.quantized = {
      metal::WeightFormat::kNf4, out, in,
      Upload(source.codes.data(), {static_cast<int64_t>(source.codes.size())}, at::kByte, device),
      Upload(source.absmax.data(), {static_cast<int64_t>(source.absmax.size())}, at::kFloat, device)};
  return matrix;
}

DeviceMatrix UploadInt8(absl::Span<const float> values, int64_t out, int64_t in, const at::Device& device) {
  const int64_t blocks = (in + kBlock - 1) / kBlock;
  std::vector<int8_t> weights(out * in);
  std::vector<float> scales(out * blocks);
  kernels::ParallelFor(0, out, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernels::QuantizeInt8(values.data() + row * in, in, kBlock, weights.data() + row * in,
                            scales.data() + row * blocks);
    }
  });
  DeviceMatrix matrix;
  matrix.quantized = {metal::WeightFormat::kInt8, out, in,
                      Upload(weights.data(), {out * in}, at::kChar, device),
                      Upload(scales.data(), {out * blocks}, at::kFloat, device)};
  return matrix;
}

DeviceMatrix UploadValues(absl::Span<const float> values, int64_t out, int64_t in,
                          kernels::ComputeType compute, const at::Device& device) {
  at::Tensor host = at::empty({out, in}, at::kFloat);
  std::copy(values.begin(), values.end(), host.data_ptr<float>());
  DeviceMatrix matrix;
  matrix.values = ToDevice(host.to(TorchType(compute)), device);
  return matrix;
}

at::Tensor MultiplyOnDevice(const at::Tensor& x, const DeviceMatrix& w, kernels::ComputeType compute,
                            metal::KernelRunner* runner) {
  const at::Tensor operand = x.to(TorchType(compute));
  if (!w.values.defined()) {
    absl::StatusOr<at::Tensor> product = metal::Linear(operand, w.quantized, runner);
    if (!product.ok()) throw std::runtime_error(std::string(product.status().message()));
    return product->to(at::kFloat);
  }
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; first < w.values.size(0); first += kMaxOutputs) {
    const int64_t count = std::min(kMaxOutputs, w.values.size(0) - first);
    parts.push_back(at::linear(operand, w.values.narrow(0, first, count)).to(at::kFloat));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

}  // namespace mechinterp::engine
