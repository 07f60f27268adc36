#ifndef SERVICES_ENGINE_KERNELS_NUMBER_FORMAT_H_
#define SERVICES_ENGINE_KERNELS_NUMBER_FORMAT_H_

#include <optional>
#include <span>
#include <string_view>

namespace mechinterp::engine {

// How numbers are written: the elements of files, the weights in memory, the operands of
// products. One enum and one table for all of them; a row's fields are empty where a format
// has no such use. docs: "how to add a format" in CONTRIBUTING.md.
enum class NumberFormat {
  kFloat32,
  kFloat16,
  kBFloat16,
  kInt8,
  kNf4,
  kFloat64,
  kInt64,
  kInt32,
  kUint8,
  kBool,
};

namespace kernels {
struct WeightKernel;
}

struct NumberFormatInfo {
  NumberFormat format = NumberFormat::kFloat32;
  // "bfloat16": in metrics and messages, and written into checkpoints (torch_dtype, NF4's
  // quant state).
  std::string_view name = {};
  std::string_view short_name = {};  // "bf16": in options and tables
  int bits = 0;                      // of one value, without scales
  // The type's name in .safetensors files; empty: they have no such elements.
  std::string_view safetensors_name = {};

  // As the weights of a matrix.
  bool scaled = false;                            // a fp32 scale for each group of a row
  const kernels::WeightKernel* kernel = nullptr;  // packs and multiplies it on the CPU; null: none does
  std::string_view metal_name = {};               // in the names of Metal kernels that multiply it

  // As what a product's operands are rounded to: its name in the names of Metal kernels.
  std::string_view metal_operand = {};

  // Numbers on the wire (model_service.proto); 0: not named there.
  int memory_part = 0;
  int compute_type = 0;
  int quantization = 0;
  int head_quantization = 0;

  // fp32, fp16 or bf16: what unquantized weights are stored in and operands rounded to.
  bool is_compute_type() const { return compute_type != 0; }
};

// Thread-safe, as all here.
const NumberFormatInfo& InfoOf(NumberFormat format);
std::span<const NumberFormatInfo> AllNumberFormats();

// The format of that short name; nothing for unknown ones.
std::optional<NumberFormat> NumberFormatOfShortName(std::string_view name);

// `value` rounded to a compute type, nearest even.
float RoundTo(NumberFormat compute, float value);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_KERNELS_NUMBER_FORMAT_H_
