#include "services/engine/kernels/number_format.h"

#include <iterator>

#include "services/common/float16.h"
#include "services/engine/kernels/weight_kernel.h"

namespace mechinterp::engine {
namespace {

using kernels::kBFloat16Kernel;
using kernels::kFloat16Kernel;
using kernels::kFloat32Kernel;
using kernels::kInt8Kernel;
using kernels::kNf4Kernel;

// In the order of the enum.
const NumberFormatInfo kFormats[] = {
    {.format = NumberFormat::kFloat32,
     .name = "float32",
     .short_name = "f32",
     .bits = 32,
     .safetensors_name = "F32",
     .kernel = &kFloat32Kernel,
     .metal_operand = "float",
     .memory_part = 1,
     .compute_type = 1},
    {.format = NumberFormat::kFloat16,
     .name = "float16",
     .short_name = "f16",
     .bits = 16,
     .safetensors_name = "F16",
     .kernel = &kFloat16Kernel,
     .metal_operand = "half",
     .memory_part = 8,
     .compute_type = 3},
    {.format = NumberFormat::kBFloat16,
     .name = "bfloat16",
     .short_name = "bf16",
     .bits = 16,
     .safetensors_name = "BF16",
     .kernel = &kBFloat16Kernel,
     .metal_operand = "bfloat",
     .memory_part = 2,
     .compute_type = 2},
    {.format = NumberFormat::kInt8,
     .name = "int8",
     .short_name = "int8",
     .bits = 8,
     .safetensors_name = "I8",
     .scaled = true,
     .kernel = &kInt8Kernel,
     .metal_name = "int8",
     .memory_part = 3,
     .head_quantization = 2},
    {.format = NumberFormat::kNf4,
     .name = "nf4",
     .short_name = "nf4",
     .bits = 4,
     .scaled = true,
     .kernel = &kNf4Kernel,
     .metal_name = "nf4",
     .memory_part = 4,
     .quantization = 2,
     .head_quantization = 3},
    {.format = NumberFormat::kFloat64,
     .name = "float64",
     .short_name = "f64",
     .bits = 64,
     .safetensors_name = "F64"},
    {.format = NumberFormat::kInt64,
     .name = "int64",
     .short_name = "i64",
     .bits = 64,
     .safetensors_name = "I64"},
    {.format = NumberFormat::kInt32,
     .name = "int32",
     .short_name = "i32",
     .bits = 32,
     .safetensors_name = "I32"},
    {.format = NumberFormat::kUint8,
     .name = "uint8",
     .short_name = "u8",
     .bits = 8,
     .safetensors_name = "U8"},
    {.format = NumberFormat::kBool,
     .name = "bool",
     .short_name = "bool",
     .bits = 8,
     .safetensors_name = "BOOL"},
};
static_assert(std::size(kFormats) == static_cast<int>(NumberFormat::kBool) + 1);

}  // namespace

const NumberFormatInfo& InfoOf(NumberFormat format) { return kFormats[static_cast<int>(format)]; }

std::span<const NumberFormatInfo> AllNumberFormats() { return kFormats; }

std::optional<NumberFormat> NumberFormatOfShortName(std::string_view name) {
  for (const NumberFormatInfo& info : kFormats) {
    if (info.short_name == name) return info.format;
  }
  return std::nullopt;
}

float RoundTo(NumberFormat compute, float value) {
  switch (compute) {
    case NumberFormat::kBFloat16:
      return BFloat16ToFloat(FloatToBFloat16(value));
    case NumberFormat::kFloat16:
      return Float16ToFloat(FloatToFloat16(value));
    default:
      return value;
  }
}

}  // namespace mechinterp::engine
