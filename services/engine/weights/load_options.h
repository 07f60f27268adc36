#ifndef SERVICES_ENGINE_WEIGHTS_LOAD_OPTIONS_H_
#define SERVICES_ENGINE_WEIGHTS_LOAD_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/engine/device/device.h"
#include "services/engine/kernels/number_format.h"

namespace mechinterp::engine {

// How matrices are held: in a format that quantizes (one with scales), or as the checkpoint
// has them.
using Quantization = std::optional<NumberFormat>;
inline constexpr Quantization kUnquantized = std::nullopt;

// What command lines call it: "none", or a format's short name; nothing for others.
std::optional<Quantization> QuantizationOfName(std::string_view name);
// Those that there are: of linear layers, of the head; and the short names of compute types.
std::vector<std::string> LinearQuantizationNames();
std::vector<std::string> HeadQuantizationNames();
std::vector<std::string> ComputeTypeNames();

namespace metal {
class KernelRunner;
}

// How a checkpoint is loaded. What is unset is chosen by ResolveFormats.
struct LoadOptions {
  // What will compute; see ChooseDevice.
  Device device;
  // Runs our kernels for Apple's GPU, in tests without one; must outlive the model. Null:
  // made for the GPU there is, if any.
  metal::KernelRunner* kernel_runner = nullptr;
  // The blocks' linear layers: unquantized or NF4. Unset: each matrix as it is stored, NF4 or
  // unquantized.
  std::optional<Quantization> quantization;
  // Holds NF4 matrices as what they stand for, each weight rounded to the type that was
  // quantized, which is what bitsandbytes multiplies by: its numbers, in the memory that
  // unquantized weights take. Packed, the rounding is left out (see matrix.h).
  bool dequantize_nf4 = false;
  // When quantizing: the scales too, as bitsandbytes does (bnb_4bit_use_double_quant).
  bool double_quantization = false;
  // The output head: unquantized, int8 or NF4. Unset: NF4 when it is stored so, int8 for
  // packed NF4 models, unquantized otherwise.
  std::optional<Quantization> head;
  // Unset, for packed NF4 models: bf16 on CPUs that multiply it natively and on CUDA, fp16 on
  // Apple's GPUs; fp32 otherwise.
  std::optional<NumberFormat> compute_type;
  // Most bytes that the weights, and the scratch of forward passes of so many rows,
  // may take in memory; 0: no limit. Estimated before anything is loaded.
  int64_t memory_limit_bytes = 0;
  int64_t scratch_rows = 0;
  // Round the rotary frequencies to bfloat16, as a reference model does whose
  // buffers were cast along with its weights (`model.to(bfloat16)`). Off: fp32,
  // which is how published checkpoints are meant to be run.
  bool round_rope_frequencies_to_bfloat16 = false;
  // Where hashes of files that have not changed are kept; empty: nowhere. See content_hash.h.
  std::string hash_cache_path;
  // What clients call the model; empty: the directory's name.
  std::string name;
  // See SelectChatTemplate.
  std::string chat_template = "auto";
};

// Whether a checkpoint has matrices that are stored as NF4.
struct StoredNf4 {
  bool linear = false;  // any of the blocks'
  bool head = false;
};

// What was chosen.
struct WeightFormats {
  Quantization quantization;
  // Whether that holds only for matrices that are stored so, and the others are unquantized.
  bool quantization_as_stored = false;
  bool dequantize_nf4 = false;
  bool double_quantization = false;
  Quantization head;
  NumberFormat compute_type = NumberFormat::kFloat32;
  Device device;
};
WeightFormats ResolveFormats(const LoadOptions& options, const StoredNf4& stored);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_LOAD_OPTIONS_H_
