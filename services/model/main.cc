// abstract-model-server: hosts one model behind mechinterp.v1.ModelService.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "prometheus/registry.h"
#include "services/common/command_line.h"
#include "services/common/logging.h"
#include "services/common/metrics_server.h"
#include "services/common/rpc_server.h"
#include "services/common/status.h"
#include "services/common/version.h"
#include "services/engine/checkpoint/model_source.h"
#include "services/engine/device/device.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/model.h"
#include "services/engine/weights/save_quantized.h"
#include "services/model/model_service.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

struct Options {
  std::string model = "data/models/tiny-llama-refusal";
  std::string listen_address = "127.0.0.1:50051";
  std::string metrics_address = "127.0.0.1:9464";
  std::string log_level = "info";
  std::string rope_frequencies = "float32";
  std::string quantization = "auto";
  std::string head_quantization = "auto";
  std::string compute_dtype = "auto";
  std::string device = "auto";
  bool skip_device_check = false;
  bool double_quant = false;
  std::string save_quantized;
  std::string chat_template = "auto";
  int threads = 0;
  int shutdown_grace_seconds = 10;
  ModelServiceOptions service;
};

std::vector<std::string> WithAuto(std::vector<std::string> names) {
  names.insert(names.begin(), "auto");
  return names;
}

void AddOptions(Command app, Options& options) {
  app.AddOption(
      "--model", options.model,
      "Directory of a checkpoint in Hugging Face layout, or ORG/NAME[@REVISION] in its local cache");
  app.AddOption("--listen-address", options.listen_address,
                "Where to serve gRPC; 0.0.0.0:50051 lets other machines in, unauthenticated");
  app.AddOption("--metrics-address", options.metrics_address,
                "Where to serve Prometheus metrics; empty: nowhere");
  app.AddOption(
         "--device", options.device,
         "What computes; auto: Apple's GPU (mps), else an NVIDIA one (cuda), else the CPU. One that is "
         "missing is replaced by the CPU")
      .OneOf({"auto", "cpu", "mps", "cuda"});
  app.AddFlag("--skip-device-check", options.skip_device_check,
              "Do not hold a GPU's arithmetic against the CPU's before serving");
  app.AddOption(
         "--quantization", options.quantization,
         "How the weights are held: as the checkpoint has them (none) or in 4 bits (nf4); auto: nf4 when the "
         "checkpoint is stored so")
      .OneOf(WithAuto(engine::LinearQuantizationNames()));
  app.AddFlag("--double-quant", options.double_quant, "When quantizing to NF4: quantize the scales too");
  app.AddOption("--head-quantization", options.head_quantization,
                "How the output head is held; auto: int8 for NF4 models, none for others")
      .OneOf(WithAuto(engine::HeadQuantizationNames()));
  app.AddOption("--compute-dtype", options.compute_dtype,
                "What the operands of matrix products are rounded to; sums are fp32. auto, for NF4 models: "
                "bf16 on CPUs that multiply it natively and on CUDA, f16 on Apple's GPUs; f32 otherwise")
      .OneOf(WithAuto(engine::ComputeTypeNames()));
  app.AddOption(
      "--save-quantized", options.save_quantized,
      "Quantize --model to NF4 and write it to this new folder, in the layout of *-bnb-4bit checkpoints; "
      "then serve that");
  app.AddOption(
         "--memory-limit", options.service.memory_limit_bytes,
         "Most bytes of memory for the model, requests and stored activations together, as in 6GB. What "
         "would take more, by estimate, is refused before it begins. 0: no limit on the CPU, what the "
         "device recommends on a GPU")
      .ByteSuffixes(ByteUnits::kKiloIs1024);
  app.AddOption("--threads", options.threads, "Threads for arithmetic; 0: one per core").InRange(0, 1024);
  app.AddOption("--max-requests", options.service.scheduler.max_requests,
                "Requests in progress at once; more are asked to try again")
      .InRange(1, 1024);
  app.AddOption("--max-batch-rows", options.service.scheduler.max_batch_rows,
                "Token positions in one forward pass, over all requests")
      .InRange(2, 1 << 20);
  app.AddOption("--prefill-chunk", options.service.scheduler.prefill_chunk_rows,
                "Longer prompts run in chunks of so many positions; others' next tokens wait for one at most")
      .InRange(1, 1 << 20);
  app.AddOption("--max-activation-bytes", options.service.max_activation_bytes,
                "Most bytes of activations that one request may record")
      .Positive();
  app.AddOption("--max-stored-bytes", options.service.max_stored_bytes,
                "Most bytes of activations kept for clients")
      .Positive();
  app.AddOption("--rope-frequencies", options.rope_frequencies,
                "Precision of the rotary frequencies; bfloat16 reproduces references whose buffers were cast")
      .OneOf({"float32", "bfloat16"});
  app.AddOption("--chat-template", options.chat_template,
                "How chat prompts are written; auto: as the checkpoint says")
      .OneOf({"auto", "llama3", "chatml", "mistral", "none"});
  app.AddOption("--shutdown-grace-seconds", options.shutdown_grace_seconds,
                "How long requests may go on after SIGTERM")
      .InRange(0, 3600);
  app.AddOption("--log-level", options.log_level, "trace, debug, info, warning, error or off");
}

engine::DevicePreference ToDevicePreference(const std::string& device) {
  if (device == "cpu") return engine::DevicePreference::kCpu;
  if (device == "mps") return engine::DevicePreference::kMps;
  if (device == "cuda") return engine::DevicePreference::kCuda;
  return engine::DevicePreference::kAuto;
}

engine::LoadOptions ToLoadOptions(const Options& options) {
  engine::LoadOptions load;
  load.quantization = engine::QuantizationOfName(options.quantization);  // unset for auto, as below
  load.double_quantization = options.double_quant;
  load.head = engine::QuantizationOfName(options.head_quantization);
  load.compute_type = engine::NumberFormatOfShortName(options.compute_dtype);
  load.chat_format = engine::ParseChatFormat(options.chat_template);  // unset for auto
  load.memory_limit_bytes = options.service.memory_limit_bytes;
  load.scratch_rows = options.service.scheduler.max_batch_rows;
  load.round_rope_frequencies_to_bfloat16 = options.rope_frequencies == "bfloat16";
  return load;
}

int Fail(const absl::Status& status) {
  spdlog::error("{}", DescribeStatus(status));
  return 1;
}

// Takes the device that there is, and its memory as the limit where none is set.
engine::Device UseDevice(Options& options) {
  const engine::DeviceChoice choice = engine::ChooseDevice(ToDevicePreference(options.device));
  if (!choice.fallback.empty()) spdlog::warn("{}", choice.fallback);
  engine::TrimDeviceCache(choice.device);
  if (choice.device.kind != engine::DeviceKind::kCpu && options.service.memory_limit_bytes == 0) {
    options.service.memory_limit_bytes = engine::MemoryOf(choice.device).total_bytes;
  }
  return choice.device;
}

void DescribeDevice(const engine::Model& model) {
  const engine::Device& device = model.device();
  if (device.kind == engine::DeviceKind::kCpu) {
    spdlog::info("computing on the CPU ({}) with {} threads", engine::DeviceName(device),
                 engine::kernels::ThreadCount());
    return;
  }
  spdlog::info("computing on {} ({}, {} MiB of memory) by libtorch {}", engine::DeviceKindName(device.kind),
               engine::DeviceName(device), engine::MemoryOf(device).total_bytes >> 20,
               engine::LibtorchVersion());
  if (!model.device_remark().empty()) spdlog::warn("{}", model.device_remark());
}

// What is wrong is in the log, and the server is up for `abstract doctor` to ask; it serves
// as soon as a check passes.
void CheckDevice(ModelService& service) {
  const absl::StatusOr<engine::SelfCheck> check = service.RunDeviceCheck();
  if (!check.ok()) {
    spdlog::error("the device could not be checked, so nothing is served: {}",
                  DescribeStatus(check.status()));
  } else if (!check->passed) {
    spdlog::error(
        "the device computes wrongly, so nothing is served: {} (tolerance {:.2g}). --device cpu works",
        check->problem, check->tolerance);
  } else {
    spdlog::info("the device's arithmetic agrees with the CPU's (check {}, {:.1f} s)", check->id,
                 absl::ToDoubleSeconds(check->duration));
  }
}

int Serve(Options options, TerminationSignals& signals) {
  if (options.threads > 0) engine::kernels::SetThreadCount(options.threads);
  const absl::StatusOr<engine::ModelSource> source =
      engine::ResolveModelSource(options.model, engine::HubCacheDirectory());
  if (!source.ok()) return Fail(WithContext(source.status(), "cannot find the model"));
  const engine::Device device = UseDevice(options);
  engine::LoadOptions load = ToLoadOptions(options);
  load.device = device;
  load.name = source->repo_id;
  std::string directory = source->directory;
  if (!options.save_quantized.empty()) {
    spdlog::info("quantizing {} to {}", directory, options.save_quantized);
    if (absl::Status saved = engine::SaveQuantized(directory, options.save_quantized, options.double_quant);
        !saved.ok()) {
      return Fail(WithContext(saved, "cannot save the quantized model"));
    }
    directory = options.save_quantized;
  }
  const absl::Time load_start = absl::Now();
  absl::StatusOr<std::shared_ptr<const engine::Model>> model = engine::Model::Load(directory, load);
  if (!model.ok()) return Fail(WithContext(model.status(), "cannot load the model"));
  spdlog::info(
      "loaded {} in {:.1f} s: {:.1f} million parameters, {} layers, hash {}, {:.1f} MiB of weights in memory",
      (*model)->name(), absl::ToDoubleSeconds(absl::Now() - load_start),
      static_cast<double>((*model)->parameter_count()) / 1e6, (*model)->config().layer_count(),
      (*model)->fingerprint().substr(0, 12), static_cast<double>((*model)->total_weight_bytes()) / (1 << 20));
  DescribeDevice(**model);

  auto registry = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics(registry);
  ModelService service(*model, options.service, metrics);
  std::unique_ptr<HttpServer> metrics_server;
  if (!options.metrics_address.empty()) {
    absl::StatusOr<std::unique_ptr<HttpServer>> started =
        StartMetricsServer(options.metrics_address, registry);
    if (!started.ok()) return Fail(started.status());
    metrics_server = *std::move(started);
    spdlog::info("metrics on port {} at /metrics", metrics_server->port());
  }
  RpcServerOptions rpc;
  rpc.listen_address = options.listen_address;
  // Requests beyond max_requests still need a thread to be turned away politely.
  rpc.max_concurrent_rpcs = options.service.scheduler.max_requests + 32;
  rpc.registry = registry;
  const bool needs_check = device.kind != engine::DeviceKind::kCpu && !options.skip_device_check;
  if (needs_check) service.device_check().Require();
  absl::StatusOr<std::unique_ptr<RpcServer>> server = RpcServer::Start(rpc, {&service});
  if (!server.ok()) return Fail(server.status());
  (*server)->SetServing(!needs_check);
  service.device_check().set_listener([&server](bool passed) { (*server)->SetServing(passed); });
  if (needs_check) CheckDevice(service);
  spdlog::info("serving mechinterp.v1.ModelService on port {}", (*server)->port());

  const int signal = signals.Wait();
  spdlog::info("signal {}: finishing what is in progress, for at most {} s", signal,
               options.shutdown_grace_seconds);
  service.device_check().set_listener(nullptr);  // nothing turns health back
  (*server)->Shutdown(absl::Seconds(options.shutdown_grace_seconds), [&service] { service.Stop(); });
  spdlog::info("stopped");
  return 0;
}

}  // namespace
}  // namespace mechinterp

int main(int argc, char** argv) {
  mechinterp::TerminationSignals signals;
  mechinterp::Options options;
  mechinterp::CommandLine command_line(
      "Hosts a language model for interpretability: generation, activations and patching over gRPC.",
      "abstract-model-server");
  mechinterp::AddOptions(command_line.root(), options);
  command_line.SetVersion(std::string("abstract-model-server ") + mechinterp::kVersion);
  command_line.UseEnvironmentAndConfig("MODEL", "model_service");
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  if (absl::Status status = mechinterp::InitLogging("abstract-model-server", options.log_level);
      !status.ok()) {
    std::fprintf(stderr, "%s\n", mechinterp::DescribeStatus(status).c_str());
    return 1;
  }
  return mechinterp::Serve(options, signals);
}
