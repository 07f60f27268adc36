// abstract-model-server: hosts one model behind mechinterp.v1.ModelService.

#include <cstdio>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "prometheus/registry.h"
#include "services/common/command_line.h"
#include "services/common/data_path.h"
#include "services/common/logging.h"
#include "services/common/metrics_server.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/termination_signals.h"
#include "services/common/version.h"
#include "services/engine/checkpoint/content_hash.h"
#include "services/engine/checkpoint/model_source.h"
#include "services/engine/device/device.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/model.h"
#include "services/engine/weights/save_quantized.h"
#include "services/model/heap_trimmer.h"
#include "services/model/model_service.h"
#include "services/model/server_options.h"
#include "services/rpc/rpc_server.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

// Takes the device that there is, and its memory as the limit where none is set.
engine::Device UseDevice(ServerOptions& options) {
  const engine::DeviceChoice choice = engine::ChooseDevice(options.device);
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
    spdlog::info("the device's results agree with the CPU's (check {}, {:.1f} s)", check->id,
                 absl::ToDoubleSeconds(check->duration));
  }
}

// Finds the checkpoint, quantizes and saves it first where that is asked for, and loads it.
absl::StatusOr<std::shared_ptr<const engine::Model>> LoadModel(const ServerOptions& options,
                                                               const engine::Device& device) {
  const absl::StatusOr<engine::ModelSource> source =
      engine::ResolveModelSource(DataPath(options.model), engine::HubCacheDirectory());
  if (!source.ok()) return WithContext(source.status(), "cannot find the model");
  engine::LoadOptions load = options.load;
  load.device = device;
  load.name = source->repo_id;
  load.hash_cache_path = engine::DefaultHashCachePath();
  load.memory_limit_bytes = options.service.memory_limit_bytes;
  load.scratch_rows = options.service.scheduler.max_batch_rows;
  std::string directory = source->directory;
  if (!options.save_quantized.empty()) {
    spdlog::info("quantizing {} to {}", directory, options.save_quantized);
    const absl::Status saved =
        engine::SaveQuantized(directory, options.save_quantized, load.double_quantization);
    if (!saved.ok()) return WithContext(saved, "cannot save the quantized model");
    directory = options.save_quantized;
  }
  const absl::Time start = absl::Now();
  absl::StatusOr<std::shared_ptr<const engine::Model>> model = engine::Model::Load(directory, load);
  if (!model.ok()) return WithContext(model.status(), "cannot load the model");
  spdlog::info(
      "loaded {} in {:.1f} s: {:.1f} million parameters, {} layers, hash {}, {:.1f} MiB of weights in memory",
      (*model)->name(), absl::ToDoubleSeconds(absl::Now() - start),
      static_cast<double>((*model)->parameter_count()) / 1e6, (*model)->config().layer_count(),
      (*model)->content_hash().substr(0, 12),
      static_cast<double>((*model)->total_weight_bytes()) / (1 << 20));
  for (const std::string& remark : (*model)->load_remarks()) spdlog::warn("{}", remark);
  if ((*model)->tokenizer() != nullptr && !(*model)->chat_template()) {
    spdlog::warn("chat prompts are refused: {}", (*model)->chat_refusal());
  }
  DescribeDevice(**model);
  return model;
}

absl::StatusOr<std::unique_ptr<HttpServer>> ServeMetrics(
    const std::string& address, const std::shared_ptr<prometheus::Registry>& registry) {
  if (address.empty()) return nullptr;
  ABSTRACT_ASSIGN_OR_RETURN(std::unique_ptr<HttpServer> server, StartMetricsServer(address, registry));
  spdlog::info("metrics on port {} at /metrics", server->port());
  return server;
}

// What stored runs may lie in besides memory; null: nothing.
absl::StatusOr<std::shared_ptr<SpillDirectory>> OpenStoreDirectory(const std::string& path,
                                                                   const engine::Model& model) {
  if (path.empty()) return nullptr;
  auto directory = SpillDirectory::Open(path, StoredRunFormat(model.config(), model.serving_hash()));
  if (!directory.ok()) return WithContext(directory.status(), "cannot use --store-directory");
  return directory;
}

// Until a signal comes.
absl::Status Serve(ServerOptions options, TerminationSignals& signals) {
  // First, so that a mistake or a taken port does not wait for a model to be loaded.
  const auto registry = std::make_shared<prometheus::Registry>();
  ABSTRACT_ASSIGN_OR_RETURN(RpcServerOptions rpc,
                            MakeServerOptions(options.network, "abstract-model-server", registry));
  rpc.dispatch.work.max_running = options.max_requests;
  rpc.dispatch.work.max_queued = options.max_queued_requests;
  ABSTRACT_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server, RpcServer::Listen(rpc));
  ABSTRACT_ASSIGN_OR_RETURN(const std::unique_ptr<HttpServer> metrics_server,
                            ServeMetrics(options.metrics_address, registry));
  if (options.threads > 0) engine::kernels::SetThreadCount(options.threads);
  const engine::Device device = UseDevice(options);
  ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::Model> model, LoadModel(options, device));

  ModelMetrics metrics(registry);
  ABSTRACT_ASSIGN_OR_RETURN(options.service.store_directory,
                            OpenStoreDirectory(options.store_directory, *model));
  ModelService service(model, options.service, metrics);
  const bool needs_check = device.kind != engine::DeviceKind::kCpu && !options.skip_device_check;
  if (needs_check) service.device_check().Require();
  signals.HoldBack();
  server->Serve({service.Methods()});
  server->SetServing(!needs_check);
  service.device_check().set_listener([&server](bool passed) { server->SetServing(passed); });
  if (needs_check) CheckDevice(service);
  spdlog::info("serving mechinterp.v1.ModelService on port {}", server->port());

  const int signal = signals.Wait();
  spdlog::info("signal {}: finishing what is in progress, for at most {} s", signal,
               options.shutdown_grace_seconds);
  service.device_check().set_listener(nullptr);  // nothing turns health back
  server->Shutdown(absl::Seconds(options.shutdown_grace_seconds), [&service] { service.Stop(); });
  spdlog::info("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace mechinterp

int main(int argc, char** argv) {
  mechinterp::PrepareHeap();
  mechinterp::TerminationSignals signals;
  mechinterp::ServerOptions options;
  mechinterp::CommandLine command_line(
      "Hosts a language model for interpretability: generation, activations and patching over gRPC.",
      "abstract-model-server");
  command_line.SetVersion(std::string("abstract-model-server ") + mechinterp::kVersion);
  mechinterp::AddServerOptions(command_line.root(), options);
  command_line.UseEnvironmentAndConfig("MODEL", "model_service");
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  if (absl::Status status = mechinterp::InitLogging("abstract-model-server", options.log_level);
      !status.ok()) {
    std::fprintf(stderr, "%s\n", mechinterp::DescribeStatus(status).c_str());
    return 1;
  }
  if (absl::Status status = mechinterp::Serve(options, signals); !status.ok()) {
    spdlog::error("{}", mechinterp::DescribeStatus(status));
    mechinterp::EndProcess(1);
  }
  mechinterp::EndProcess(0);
}
