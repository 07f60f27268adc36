#include "services/model/server_options.h"

#include <utility>
#include <vector>

#include "services/common/command_line.h"
#include "services/common/version.h"
#include "services/engine/kernels/number_format.h"
#include "services/engine/tokenizer/chat/chat_template.h"

namespace mechinterp {
namespace {

// The words that an option takes and what each stands for; the first is the default.
template <typename Value>
using Choices = std::vector<std::pair<std::string, Value>>;

template <typename Value>
void AddChoice(CLI::App& app, const std::string& flag, Value& value, Choices<Value> choices,
               const std::string& description) {
  std::vector<std::string> words;
  for (const auto& [word, meaning] : choices) words.push_back(word);
  value = choices.front().second;
  const auto choose = [&value, choices = std::move(choices)](const std::string& given) {
    for (const auto& [word, meaning] : choices) {
      if (word == given) value = meaning;
    }
  };
  app.add_option_function<std::string>(flag, choose, description)
      ->check(CLI::IsMember(words))
      ->default_str(words.front());
}

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

Choices<std::optional<engine::ChatFormat>> ChatFormats() {
  Choices<std::optional<engine::ChatFormat>> choices = {{"auto", std::nullopt}};
  for (const engine::ChatFormat format : {engine::ChatFormat::kLlama3, engine::ChatFormat::kChatMl,
                                          engine::ChatFormat::kMistral, engine::ChatFormat::kNone}) {
    choices.emplace_back(engine::ChatFormatName(format), format);
  }
  return choices;
}

// "6GB" (10^9), "6GiB" (2^30), bytes without a unit. CLI11 alone reads -5 as 2^64 - 5.
std::string ReadMemorySize(std::string& text) {
  if (text.find('-') != std::string::npos) return "must be at least 0";
  return CLI::AsSizeValue(/*kb_is_1000=*/true)(text);
}

void AddAddresses(CLI::App& app, ServerOptions& options) {
  app.add_option("--listen-address", options.listen_address,
                 "Where to serve gRPC; 0.0.0.0:50051 lets other machines in, unauthenticated")
      ->capture_default_str();
  app.add_option("--metrics-address", options.metrics_address,
                 "Where to serve Prometheus metrics; empty: nowhere")
      ->capture_default_str();
}

// What is loaded, and how.
void AddModel(CLI::App& app, ServerOptions& options) {
  app.add_option(
         "--model", options.model,
         "Directory of a checkpoint in Hugging Face layout, or ORG/NAME[@REVISION] in its local cache")
      ->capture_default_str();
  AddChoice(app, "--device", options.device, Devices(),
            "What computes; auto: Apple's GPU (mps), else an NVIDIA one (cuda), else the CPU. One that is "
            "missing is replaced by the CPU");
  app.add_flag("--skip-device-check", options.skip_device_check,
               "Do not check a GPU's results against the CPU's before serving");
  AddChoice(app, "--quantization", options.load.quantization,
            AutoOr(engine::LinearQuantizationNames(), engine::QuantizationOfName),
            "How the weights are held: as the checkpoint has them (none) or in 4 bits (nf4); auto: nf4 when "
            "the checkpoint is stored so");
  app.add_flag("--double-quant", options.load.double_quantization,
               "When quantizing to NF4: quantize the scales too");
  AddChoice(app, "--head-quantization", options.load.head,
            AutoOr(engine::HeadQuantizationNames(), engine::QuantizationOfName),
            "How the output head is held; auto: int8 for NF4 models, none for others");
  AddChoice(app, "--compute-dtype", options.load.compute_type,
            AutoOr(engine::ComputeTypeNames(), engine::NumberFormatOfShortName),
            "What the operands of matrix products are rounded to; sums are fp32. auto, for NF4 models: bf16 "
            "on CPUs that multiply it natively and on CUDA, f16 on Apple's GPUs; f32 otherwise");
  app.add_option(
      "--save-quantized", options.save_quantized,
      "Quantize --model to NF4 and write it to this new folder, in the layout of *-bnb-4bit checkpoints; "
      "then serve that");
  AddChoice(app, "--rope-frequencies", options.load.round_rope_frequencies_to_bfloat16,
            {{"float32", false}, {"bfloat16", true}},
            "Precision of the rotary frequencies; bfloat16 reproduces references whose buffers were cast");
  AddChoice(app, "--chat-template", options.load.chat_format, ChatFormats(),
            "How chat prompts are written; auto: as the checkpoint says");
}

// What requests may take of the machine.
void AddLimits(CLI::App& app, ServerOptions& options) {
  app.add_option(
         "--memory-limit", options.service.memory_limit_bytes,
         "Most bytes of memory for the model, requests and stored activations together, as in 6GB or "
         "6GiB. What would take more, by estimate, is refused before it begins. 0: no limit on the CPU, "
         "what the device recommends on a GPU")
      ->transform(CLI::Validator(ReadMemorySize, "SIZE"))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads for arithmetic; 0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--max-requests", options.service.scheduler.max_requests,
                 "Requests in progress at once; more are asked to try again")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--max-batch-rows", options.service.scheduler.max_batch_rows,
                 "Token positions in one forward pass, over all requests")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--prefill-chunk", options.service.scheduler.prefill_chunk_rows,
                 "Positions per chunk of longer prompts; other requests' next tokens wait for one chunk at "
                 "most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--max-activation-bytes", options.service.max_activation_bytes,
                 "Most bytes of activations that one request may record")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-stored-bytes", options.service.max_stored_bytes,
                 "Most bytes of activations kept for clients")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--shutdown-grace-seconds", options.shutdown_grace_seconds,
                 "How long requests may go on after SIGTERM")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
}

}  // namespace

void AddServerOptions(CLI::App& app, ServerOptions& options) {
  app.set_version_flag("--version", std::string("abstract-model-server ") + kVersion);
  AddModel(app, options);
  AddAddresses(app, options);
  AddLimits(app, options);
  app.add_option("--log-level", options.log_level,
                 "trace, debug (every RPC when it ends), info, warning, error or off")
      ->capture_default_str();
  AddEnvironmentAndConfig(app, "MODEL", "model_service");
}

}  // namespace mechinterp
