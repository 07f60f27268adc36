// abstract-model-server: hosts one model behind mechinterp.v1.ModelService.

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "CLI/CLI.hpp"
#include "prometheus/registry.h"
#include "services/common/command_line.h"
#include "services/common/logging.h"
#include "services/common/metrics_server.h"
#include "services/common/rpc_server.h"
#include "services/common/status.h"
#include "services/common/version.h"
#include "services/model/engine/kernels/kernels.h"
#include "services/model/engine/model.h"
#include "services/model/engine/model_source.h"
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
  std::string chat_template = "auto";
  int threads = 0;
  int shutdown_grace_seconds = 10;
  ModelServiceOptions service;
};

void AddOptions(CLI::App& app, Options& options) {
  app.set_version_flag("--version", std::string("abstract-model-server ") + kVersion);
  app.add_option(
         "--model", options.model,
         "Directory of a checkpoint in Hugging Face layout, or ORG/NAME[@REVISION] in its local cache")
      ->capture_default_str();
  app.add_option("--listen-address", options.listen_address,
                 "Where to serve gRPC; 0.0.0.0:50051 lets other machines in, unauthenticated")
      ->capture_default_str();
  app.add_option("--metrics-address", options.metrics_address,
                 "Where to serve Prometheus metrics; empty: nowhere")
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
  app.add_option("--max-activation-bytes", options.service.max_activation_bytes,
                 "Most bytes of activations that one request may record")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-stored-bytes", options.service.max_stored_bytes,
                 "Most bytes of activations kept for clients")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option(
         "--rope-frequencies", options.rope_frequencies,
         "Precision of the rotary frequencies; bfloat16 reproduces references whose buffers were cast")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--chat-template", options.chat_template,
                 "How chat prompts are written; auto: as the checkpoint says")
      ->check(CLI::IsMember({"auto", "llama3", "chatml", "mistral", "none"}))
      ->capture_default_str();
  app.add_option("--shutdown-grace-seconds", options.shutdown_grace_seconds,
                 "How long requests may go on after SIGTERM")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  app.add_option("--log-level", options.log_level, "trace, debug, info, warning, error or off")
      ->capture_default_str();
  AddEnvironmentAndConfig(app, "MODEL", "model_service");
}

int Fail(const absl::Status& status) {
  spdlog::error("{}", DescribeStatus(status));
  return 1;
}

int Serve(const Options& options, TerminationSignals& signals) {
  // libtorch's own default is one thread on some machines.
  at::set_num_threads(options.threads > 0
                          ? options.threads
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  engine::LoadOptions load;
  load.round_rope_frequencies_to_bfloat16 = options.rope_frequencies == "bfloat16";
  load.chat_format = engine::ParseChatFormat(options.chat_template);  // unset for auto
  const absl::StatusOr<engine::ModelSource> source =
      engine::ResolveModelSource(options.model, engine::HubCacheDirectory());
  if (!source.ok()) return Fail(WithContext(source.status(), "cannot find the model"));
  load.name = source->repo_id;
  absl::StatusOr<std::shared_ptr<const engine::Model>> model = engine::Model::Load(source->directory, load);
  if (!model.ok()) return Fail(WithContext(model.status(), "cannot load the model"));
  spdlog::info("loaded {}: {:.1f} million parameters, {} layers, hash {}", (*model)->name(),
               static_cast<double>((*model)->parameter_count()) / 1e6, (*model)->config().layer_count,
               (*model)->fingerprint().substr(0, 12));
  spdlog::info("computing on the CPU with {} threads and {} instructions", at::get_num_threads(),
               engine::kernels::InstructionSet());

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
  absl::StatusOr<std::unique_ptr<RpcServer>> server = RpcServer::Start(rpc, {&service});
  if (!server.ok()) return Fail(server.status());
  (*server)->SetServing(true);
  spdlog::info("serving mechinterp.v1.ModelService on port {}", (*server)->port());

  const int signal = signals.Wait();
  spdlog::info("signal {}: finishing what is in progress, for at most {} s", signal,
               options.shutdown_grace_seconds);
  (*server)->Shutdown(absl::Seconds(options.shutdown_grace_seconds));
  spdlog::info("stopped");
  return 0;
}

}  // namespace
}  // namespace mechinterp

int main(int argc, char** argv) {
  mechinterp::TerminationSignals signals;
  mechinterp::Options options;
  CLI::App app("Hosts a language model for interpretability: generation, activations and patching over gRPC.",
               "abstract-model-server");
  mechinterp::AddOptions(app, options);
  CLI11_PARSE(app, argc, argv);
  if (absl::Status status = mechinterp::InitLogging("abstract-model-server", options.log_level);
      !status.ok()) {
    std::fprintf(stderr, "%s\n", mechinterp::DescribeStatus(status).c_str());
    return 1;
  }
  return mechinterp::Serve(options, signals);
}
