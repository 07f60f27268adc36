#include "services/engine/metal/metal_linear.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine::metal {
namespace {

// MPS's matrix products have been wrong in dimensions above this.
constexpr int64_t kMaxPanelOutputs = 32768;
// Elements of a dequantized panel: 64 MiB in fp16, so that a laptop's memory does not
// hold a second, larger copy of the biggest matrix.
constexpr int64_t kMaxPanelElements = INT64_C(1) << 25;
constexpr int64_t kBlock = 64;  // weights with one scale

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

absl::StatusOr<NumberFormat> TypeOf(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return NumberFormat::kFloat32;
    case at::kHalf:
      return NumberFormat::kFloat16;
    case at::kBFloat16:
      return NumberFormat::kBFloat16;
    default:
      return absl::InvalidArgumentError(absl::StrCat("no kernels for ", at::toString(type)));
  }
}

absl::Status CheckPart(const char* what, const at::Tensor& part, at::ScalarType type, int64_t count) {
  if (part.defined() && part.scalar_type() == type && part.numel() == count && part.is_contiguous()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("a quantized matrix's ", what, " must be ", count,
                                                 " contiguous elements of ", at::toString(type)));
}

absl::Status Check(const QuantizedMatrix& w) {
  if (w.out < 1 || w.in < 1) return absl::InvalidArgumentError("a quantized matrix is empty");
  const bool nf4 = w.format == NumberFormat::kNf4;
  const int64_t count = w.out * w.in;
  ABSTRACT_RETURN_IF_ERROR(
      CheckPart("weights", w.weights, nf4 ? at::kByte : at::kChar, nf4 ? CeilDiv(count, 2) : count));
  return CheckPart("scales", w.scales, at::kFloat,
                   nf4 ? CeilDiv(count, kBlock) : w.out * CeilDiv(w.in, kBlock));
}

// Whether a tensor starts where the kernels' widest loads may. Device buffers
// themselves are aligned far better than that, so its offset decides.
bool Aligned(const at::Tensor& tensor) { return tensor.storage_offset() * tensor.element_size() % 16 == 0; }

bool Aligned(const QuantizedMatrix& w) { return Aligned(w.weights) && Aligned(w.scales); }

// The two values of every byte of NF4 codes, [256, 2].
at::Tensor Nf4Pairs(const at::Device& device) {
  constexpr float kCodes[16] = NF4_CODES;
  at::Tensor pairs = at::empty({256, 2}, at::kFloat);
  float* values = pairs.data_ptr<float>();
  for (int byte = 0; byte < 256; ++byte) {
    values[2 * byte] = kCodes[byte >> 4];
    values[2 * byte + 1] = kCodes[byte & 15];
  }
  return pairs.to(device);
}

// fp32 [outputs, in]: whole blocks around the rows, then the rows out of them.
at::Tensor DequantizeNf4ByAten(const QuantizedMatrix& w, int64_t first_output, int64_t outputs) {
  const int64_t first = first_output * w.in, count = outputs * w.in;
  const int64_t begin = first / kBlock, end = CeilDiv(first + count, kBlock);
  const int64_t codes_end = std::min(end * kBlock / 2, w.weights.numel());
  const at::Tensor codes = w.weights.reshape({-1}).slice(0, begin * kBlock / 2, codes_end).to(at::kInt);
  at::Tensor values = Nf4Pairs(w.weights.device()).index_select(0, codes).reshape({-1});
  const int64_t padding = (end - begin) * kBlock - values.numel();
  if (padding > 0) values = at::cat({values, at::zeros({padding}, values.options())});
  const at::Tensor scales = w.scales.reshape({-1}).slice(0, begin, end).reshape({-1, 1});
  values = (values.reshape({-1, kBlock}) * scales).reshape({-1});
  return values.slice(0, first - begin * kBlock, first - begin * kBlock + count).reshape({outputs, w.in});
}

at::Tensor DequantizeInt8ByAten(const QuantizedMatrix& w, int64_t first_output, int64_t outputs) {
  const int64_t groups = CeilDiv(w.in, kBlock);
  const at::Tensor weights = w.weights.reshape({w.out, w.in}).slice(0, first_output, first_output + outputs);
  const at::Tensor scales =
      w.scales.reshape({w.out, groups, 1}).slice(0, first_output, first_output + outputs);
  const at::Tensor each = scales.expand({outputs, groups, kBlock}).reshape({outputs, groups * kBlock});
  return weights.to(at::kFloat) * each.slice(1, 0, w.in);
}

absl::StatusOr<at::Tensor> LinearByKernel(const at::Tensor& x, const QuantizedMatrix& w, NumberFormat type,
                                          KernelRunner& runner) {
  ABSTRACT_ASSIGN_OR_RETURN(const Launch launch,
                            LinearLaunch(w.format, type, x.size(0), w.in, w.out, Aligned(x) && Aligned(w)));
  const at::ScalarType y_type = w.format == NumberFormat::kInt8 ? at::kFloat : x.scalar_type();
  const at::Tensor y = at::empty({x.size(0), w.out}, x.options().dtype(y_type));
  ABSTRACT_RETURN_IF_ERROR(runner.Run(launch, {w.weights, w.scales, x, y}));
  return y;
}

absl::StatusOr<at::Tensor> LinearByPanels(const at::Tensor& x, const QuantizedMatrix& w,
                                          KernelRunner* runner) {
  // Logits are multiplied in fp32, as the kernels sum them.
  const at::Tensor operand = w.format == NumberFormat::kInt8 ? x.to(at::kFloat) : x;
  const int64_t panel_outputs = std::clamp<int64_t>(kMaxPanelElements / w.in, 1, kMaxPanelOutputs);
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; first < w.out; first += panel_outputs) {
    const int64_t outputs = std::min(panel_outputs, w.out - first);
    ABSTRACT_ASSIGN_OR_RETURN(const at::Tensor panel,
                              Dequantize(w, first, outputs, operand.scalar_type(), runner));
    parts.push_back(at::linear(operand, panel));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

}  // namespace

absl::StatusOr<at::Tensor> Dequantize(const QuantizedMatrix& w, int64_t first_output, int64_t outputs,
                                      at::ScalarType type, KernelRunner* runner) {
  ABSTRACT_RETURN_IF_ERROR(Check(w));
  ABSTRACT_ASSIGN_OR_RETURN(const NumberFormat activation, TypeOf(type));
  ABSTRACT_ASSIGN_OR_RETURN(const Launch launch, DequantizeLaunch(w.format, activation, w.in, w.out,
                                                                  first_output, outputs, Aligned(w)));
  if (runner == nullptr) {
    const bool nf4 = w.format == NumberFormat::kNf4;
    return (nf4 ? DequantizeNf4ByAten(w, first_output, outputs)
                : DequantizeInt8ByAten(w, first_output, outputs))
        .to(type)
        .contiguous();
  }
  const at::Tensor panel = at::empty({outputs, w.in}, w.scales.options().dtype(type));
  ABSTRACT_RETURN_IF_ERROR(runner->Run(launch, {w.weights, w.scales, panel}));
  return panel;
}

absl::StatusOr<at::Tensor> Linear(const at::Tensor& x, const QuantizedMatrix& w, KernelRunner* runner) {
  ABSTRACT_RETURN_IF_ERROR(Check(w));
  if (x.dim() != 2 || x.size(1) != w.in || x.size(0) < 1 || !x.is_contiguous() ||
      x.device() != w.weights.device()) {
    return absl::InvalidArgumentError(
        absl::StrCat("activations must be contiguous [rows, ", w.in, "] on the matrix's device"));
  }
  ABSTRACT_ASSIGN_OR_RETURN(const NumberFormat type, TypeOf(x.scalar_type()));
  if (runner != nullptr && x.size(0) <= kMaxLinearRows) return LinearByKernel(x, w, type, *runner);
  return LinearByPanels(x, w, runner);
}

}  // namespace mechinterp::engine::metal
