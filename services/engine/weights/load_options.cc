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

WeightFormats ResolveFormats(const LoadOptions& options, bool stored_as_nf4) {
  WeightFormats formats;
  formats.device = options.device;
  formats.quantization =
      options.quantization.value_or(stored_as_nf4 ? Quantization(NumberFormat::kNf4) : kUnquantized);
  const bool nf4 = formats.quantization == NumberFormat::kNf4;
  formats.double_quantization = options.double_quantization;
  formats.head = options.head.value_or(nf4 ? Quantization(NumberFormat::kInt8) : kUnquantized);
  formats.compute_type =
      options.compute_type.value_or(nf4 ? FastType(options.device) : NumberFormat::kFloat32);
  return formats;
}

}  // namespace mechinterp::engine
