#ifndef SERVICES_ENGINE_WEIGHTS_LOAD_OPTIONS_H_
#define SERVICES_ENGINE_WEIGHTS_LOAD_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "services/engine/device/device.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/tokenizer/chat/chat_template.h"

namespace mechinterp::engine {

// How the weights of the blocks' linear layers are held: as the checkpoint has
// them, or as 4-bit NormalFloat.
enum class Quantization { kNone, kNf4 };

// The same for the output head, which may also be held in 8 bits.
enum class HeadQuantization { kNone, kInt8, kNf4 };

using kernels::ComputeType;

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
  // Unset: NF4 when the checkpoint is stored so, none otherwise.
  std::optional<Quantization> quantization;
  // When quantizing: the scales too, as bitsandbytes does (bnb_4bit_use_double_quant).
  bool double_quantization = false;
  // Unset: int8 for NF4 models, none otherwise.
  std::optional<HeadQuantization> head;
  // Unset, for NF4 models: bf16 on CPUs that multiply it natively and on CUDA, fp16 on
  // Apple's GPUs; fp32 otherwise.
  std::optional<ComputeType> compute_type;
  // Most bytes that the weights, and the scratch of forward passes of so many rows,
  // may take in memory; 0: no limit. Estimated before anything is loaded.
  int64_t memory_limit_bytes = 0;
  int64_t scratch_rows = 0;
  // Round the rotary frequencies to bfloat16, as a reference model does whose
  // buffers were cast along with its weights (`model.to(bfloat16)`). Off: fp32,
  // which is how published checkpoints are meant to be run.
  bool round_rope_frequencies_to_bfloat16 = false;
  // What clients call the model; empty: the directory's name.
  std::string name;
  // Unset: what the checkpoint itself says; see SelectChatTemplate.
  std::optional<ChatFormat> chat_format;
};

// What was chosen.
struct WeightFormats {
  Quantization quantization = Quantization::kNone;
  bool double_quantization = false;
  HeadQuantization head = HeadQuantization::kNone;
  ComputeType compute_type = ComputeType::kFloat32;
  Device device;
};
WeightFormats ResolveFormats(const LoadOptions& options, bool stored_as_nf4);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_LOAD_OPTIONS_H_
