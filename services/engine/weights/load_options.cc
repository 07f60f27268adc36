#include "services/engine/weights/load_options.h"

#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/multiply.h"

namespace mechinterp::engine {
namespace {

constexpr char kUnquantizedName[] = "none";

// What a device multiplies best beside fp32. Apple's GPUs have bf16 natively only since
// the M3, fp16 all of them.
NumberFormat FastType(const Device& device) {
  switch (device.kind) {
    case DeviceKind::kMps:
      return NumberFormat::kFloat16;
    case DeviceKind::kCuda:
      return NumberFormat::kBFloat16;
    case DeviceKind::kCpu:
      break;
  }
  const bool native = kernels::MultipliesBFloat16() && !device.UsesLibtorch();
  return native ? NumberFormat::kBFloat16 : NumberFormat::kFloat32;
}

std::vector<std::string> NamesWith(int NumberFormatInfo::*wire_number) {
  std::vector<std::string> names;
  for (const NumberFormatInfo& info : AllNumberFormats()) {
    if (info.*wire_number != 0) names.emplace_back(info.short_name);
  }
  return names;
}

std::vector<std::string> WithUnquantized(std::vector<std::string> names) {
  names.insert(names.begin(), kUnquantizedName);
  return names;
}

}  // namespace

std::optional<Quantization> QuantizationOfName(std::string_view name) {
  if (name == kUnquantizedName) return kUnquantized;
  const std::optional<NumberFormat> format = NumberFormatOfShortName(name);
  if (!format || !InfoOf(*format).scaled) return std::nullopt;
  return Quantization(format);
}

std::vector<std::string> LinearQuantizationNames() {
  return WithUnquantized(NamesWith(&NumberFormatInfo::quantization));
}
std::vector<std::string> HeadQuantizationNames() {
  return WithUnquantized(NamesWith(&NumberFormatInfo::head_quantization));
}
std::vector<std::string> ComputeTypeNames() { return NamesWith(&NumberFormatInfo::compute_type); }

WeightFormats ResolveFormats(const LoadOptions& options, const StoredNf4& stored) {
  WeightFormats formats;
  formats.device = options.device;
  formats.quantization_as_stored = !options.quantization;
  formats.quantization =
      options.quantization.value_or(stored.linear ? Quantization(NumberFormat::kNf4) : kUnquantized);
  formats.double_quantization = options.double_quantization;
  formats.dequantize_nf4 = options.dequantize_nf4;
  const bool packed = formats.quantization == NumberFormat::kNf4 && !formats.dequantize_nf4;
  const Quantization head = packed ? Quantization(NumberFormat::kInt8) : kUnquantized;
  formats.head = options.head.value_or(stored.head ? Quantization(NumberFormat::kNf4) : head);
  formats.compute_type =
      options.compute_type.value_or(packed ? FastType(options.device) : NumberFormat::kFloat32);
  return formats;
}

}  // namespace mechinterp::engine
