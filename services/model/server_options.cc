#include "services/model/server_options.h"

#include <utility>
#include <vector>

#include "services/common/command_line.h"
#include "services/engine/kernels/number_format.h"
#include "services/engine/tokenizer/chat/chat_formats.h"

namespace mechinterp {
namespace {

// The words that an option takes and what each stands for.
template <typename Value>
using Choices = std::vector<std::pair<std::string, Value>>;

Choices<engine::DevicePreference> Devices() {
  return {{"auto", engine::DevicePreference::kAuto},
          {"cpu", engine::DevicePreference::kCpu},
          {"mps", engine::DevicePreference::kMps},
          {"cuda", engine::DevicePreference::kCuda}};
}

// "auto", which leaves the choice to the engine, and the names that it knows.
template <typename Value>
Choices<std::optional<Value>> AutoOr(const std::vector<std::string>& names,
                                     std::optional<Value> (*value_of)(std::string_view)) {
  Choices<std::optional<Value>> choices = {{"auto", std::nullopt}};
  for (const std::string& name : names) choices.emplace_back(name, value_of(name));
  return choices;
}

void AddAddresses(Command command, ServerOptions& options) {
  AddNetworkOptions(command, options.network);
  command.AddOption("--metrics-address", options.metrics_address,
                    "Where to serve Prometheus metrics; empty: nowhere");
}

// What is loaded, and how.
void AddModel(Command command, ServerOptions& options) {
  command.AddOption(
      "--model", options.model,
      "Directory of a checkpoint in Hugging Face layout, or ORG/NAME[@REVISION] in its local cache");
  command.AddChoice(
      "--device", options.device, Devices(),
      "What computes; auto: Apple's GPU (mps), else an NVIDIA one (cuda), else the CPU. One that is "
      "missing is replaced by the CPU");
  command.AddFlag("--skip-device-check", options.skip_device_check,
                  "Do not check a GPU's results against the CPU's before serving");
  command.AddChoice(
      "--quantization", options.load.quantization,
      AutoOr(engine::LinearQuantizationNames(), engine::QuantizationOfName),
      "How the weights are held: unquantized (none) or in 4 bits (nf4); auto: each matrix as the "
      "checkpoint has it");
  command.AddFlag("--dequantize-nf4", options.load.dequantize_nf4,
                  "Hold NF4 matrices as the values they stand for, each rounded to the type that was "
                  "quantized, as bitsandbytes multiplies them: its numbers, at 16 bits a weight (32 for "
                  "fp32) instead of 4.5");
  command.AddFlag("--double-quant", options.load.double_quantization,
                  "When quantizing to NF4: quantize the scales too");
  command.AddChoice(
      "--head-quantization", options.load.head,
      AutoOr(engine::HeadQuantizationNames(), engine::QuantizationOfName),
      "How the output head is held; auto: nf4 when it is stored so, int8 for packed NF4 models, "
      "none for others");
  command.AddChoice(
      "--compute-dtype", options.load.compute_type,
      AutoOr(engine::ComputeTypeNames(), engine::NumberFormatOfShortName),
      "What the operands of matrix products are rounded to; sums are fp32. auto, for packed NF4 models: bf16 "
      "on CPUs that multiply it natively and on CUDA, f16 on Apple's GPUs; f32 otherwise");
  command.AddOption(
      "--save-quantized", options.save_quantized,
      "Quantize --model to NF4 and write it to this new folder, in the layout of *-bnb-4bit checkpoints; "
      "then serve that");
  command.AddChoice(
      "--rope-frequencies", options.load.round_rope_frequencies_to_bfloat16,
      Choices<bool>{{"float32", false}, {"bfloat16", true}},
      "Precision of the rotary frequencies; bfloat16 reproduces references whose buffers were cast");
  command.AddOption(
      "--chat-template", options.load.chat_template,
      "How chat prompts are written: auto (as the checkpoint's template does, where that is proven), "
      "none, mistral, " +
          engine::ChatFormatNames() + ", or a JSON file that states a format");
}

// What requests may take of the machine.
void AddLimits(Command command, ServerOptions& options) {
  command
      .AddOption(
          "--memory-limit", options.service.memory_limit_bytes,
          "Most bytes of memory for the model, requests and stored activations together, as in 6GB or "
          "6GiB. What would take more, by estimate, is refused before it begins. 0: no limit on the CPU, "
          "what the device recommends on a GPU")
      .ByteSuffixes(ByteUnits::kKiloIs1000);
  command.AddOption("--threads", options.threads, "Threads for arithmetic; 0: one per core").InRange(0, 1024);
  command.AddOption("--max-requests", options.max_requests, "Requests in progress at once; more wait")
      .InRange(1, 1024);
  command
      .AddOption("--max-queued-requests", options.max_queued_requests,
                 "Requests that wait, half of them of one client at most; more are asked to try again")
      .InRange(0, 1 << 20);
  command
      .AddOption("--max-batch-rows", options.service.scheduler.max_batch_rows,
                 "Token positions in one forward pass, over all requests")
      .InRange(2, 1 << 20);
  command
      .AddOption("--prefill-chunk", options.service.scheduler.prefill_chunk_rows,
                 "Positions per chunk of longer prompts; other requests' next tokens wait for one chunk at "
                 "most")
      .InRange(1, 1 << 20);
  command
      .AddOption("--max-activation-bytes", options.service.max_activation_bytes,
                 "Most bytes of activations that one request may record")
      .Positive();
  command
      .AddOption("--max-stored-bytes", options.service.max_stored_bytes,
                 "Most bytes of memory that activations kept for clients may take")
      .Positive();
  command.AddOption("--store-directory", options.store_directory,
                    "Private folder to which stored activations move when memory has no room for them, and "
                    "where they outlive the server; empty: memory only");
  command
      .AddOption("--max-stored-disk-bytes", options.service.max_stored_disk_bytes,
                 "Most bytes of that folder")
      .Positive();
  command
      .AddOption("--shutdown-grace-seconds", options.shutdown_grace_seconds,
                 "How long requests may go on after SIGTERM")
      .InRange(0, 3600);
}

}  // namespace

void AddServerOptions(Command command, ServerOptions& options) {
  AddModel(command, options);
  AddAddresses(command, options);
  AddLimits(command, options);
  command.AddOption("--log-level", options.log_level,
                    "trace, debug, info (every request when it ends), warning, error or off");
}

}  // namespace mechinterp
