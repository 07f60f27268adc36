// abstract-analysis-server: keeps studies' results, ranks components, draws the
// circuit, and serves the dashboard. See README.md.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/analysis/analysis_service.h"
#include "services/analysis/dashboard.h"
#include "services/analysis/dashboard_server.h"
#include "services/analysis/run_store.h"
#include "services/analysis/study.h"
#include "services/common/command_line.h"
#include "services/common/logging.h"
#include "services/common/metrics_server.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/termination_signals.h"
#include "services/common/text_file.h"
#include "services/common/version.h"
#include "services/rpc/network_options.h"
#include "services/rpc/rpc_server.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

constexpr char kImportedRunId[] = "latest";
constexpr absl::Duration kShutdownGrace = absl::Seconds(5);

struct Options {
  NetworkOptions network = NetworkOptions("127.0.0.1:50052");
  std::string http_address = "127.0.0.1:8080";
  std::string http_hosts;
  std::string metrics_address = "127.0.0.1:9465";
  std::string database = "outputs/analysis.sqlite";
  std::string log_level = "info";
  std::string results;
  std::string output;
  bool render_once = false;
};

void AddOptions(Command app, Options& options) {
  AddNetworkOptions(app, options.network);
  app.AddOption("--http-address", options.http_address, "HOST:PORT for the dashboard; empty: none");
  app.AddOption(
      "--http-hosts", options.http_hosts,
      "Names that browsers may ask the dashboard for, between commas; empty: localhost, 127.0.0.1 and "
      "[::1] where only this machine reaches the address, any name elsewhere");
  app.AddOption("--metrics-address", options.metrics_address, "HOST:PORT for Prometheus; empty: none");
  app.AddOption("--database", options.database, "SQLite file that keeps the runs");
  app.AddOption("--log-level", options.log_level, "trace, debug, info, warning, error or off");
  app.AddOption(
      "--results", options.results,
      absl::StrCat("Folder with a study's results; imported at start as run \"", kImportedRunId, "\""));
  app.AddOption("--output", options.output,
                "Also write the dashboard of --results to this file [outputs/figures/dashboard.html with "
                "--render-once]");
  app.AddFlag("--render-once", options.render_once, "Write the dashboard of --results and exit");
}

absl::Status WriteDashboard(v1::Study study, const std::string& path) {
  v1::GetRunResponse run;
  run.mutable_description()->set_run_id(kImportedRunId);
  run.mutable_description()->set_model_name(ModelName(study));
  *run.mutable_study() = std::move(study);
  ABSTRACT_ASSIGN_OR_RETURN(const std::string html, RenderDashboard(std::move(run)));
  ABSTRACT_RETURN_IF_ERROR(WriteTextFileAtomically(path, html));
  spdlog::info("wrote {}", path);
  return absl::OkStatus();
}

absl::Status RenderOnce(const Options& options) {
  const std::string folder = options.results.empty() ? "outputs/results" : options.results;
  ABSTRACT_ASSIGN_OR_RETURN(v1::Study study, ReadStudy(folder));
  if (IsEmpty(study))
    spdlog::warn("{} holds no results yet; the dashboard will say how to make them", folder);
  return WriteDashboard(std::move(study),
                        options.output.empty() ? "outputs/figures/dashboard.html" : options.output);
}

absl::Status ImportResults(const Options& options, RunStore& store) {
  if (options.results.empty()) return absl::OkStatus();
  ABSTRACT_ASSIGN_OR_RETURN(const v1::Study study, ReadStudy(options.results));
  if (!options.output.empty()) ABSTRACT_RETURN_IF_ERROR(WriteDashboard(study, options.output));
  if (IsEmpty(study)) {
    spdlog::warn("{} holds no results yet; nothing was imported", options.results);
    return absl::OkStatus();
  }
  spdlog::info("imported {} as run \"{}\"", options.results, kImportedRunId);
  return store.Import(kImportedRunId, study);
}

// HOST:PORT with the port that was taken; empty without a dashboard.
std::string HttpAddress(const Options& options, const HttpServer* server) {
  if (server == nullptr) return "";
  return absl::StrCat(options.http_address.substr(0, options.http_address.rfind(':')), ":", server->port());
}

// The tokens that gRPC takes, for browsers.
DashboardOptions DashboardFor(const Options& options, const std::shared_ptr<AccessControl>& access) {
  DashboardOptions dashboard;
  dashboard.allowed_hosts = absl::StrSplit(options.http_hosts, ',', absl::SkipWhitespace());
  if (access != nullptr) {
    dashboard.check = [access](const std::string& token, const std::string& host) {
      return access->Identify(absl::StrCat("Bearer ", token), host).status();
    };
  }
  return dashboard;
}

absl::Status Serve(const Options& options, TerminationSignals& signals) {
  ABSTRACT_ASSIGN_OR_RETURN(RpcServerOptions rpc_options,
                            MakeServerOptions(options.network, "abstract-analysis-server", nullptr));
  ABSTRACT_RETURN_IF_ERROR(CheckServerOptions(rpc_options));
  ABSTRACT_ASSIGN_OR_RETURN(const std::unique_ptr<RunStore> store, RunStore::Open(options.database));
  ABSTRACT_RETURN_IF_ERROR(ImportResults(options, *store));

  const auto registry = std::make_shared<prometheus::Registry>();
  std::unique_ptr<HttpServer> metrics_server;
  if (!options.metrics_address.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(metrics_server, StartMetricsServer(options.metrics_address, registry));
    spdlog::info("metrics on port {}", metrics_server->port());
  }
  std::unique_ptr<HttpServer> dashboard_server;
  if (!options.http_address.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(
        dashboard_server,
        StartDashboardServer(options.http_address, store.get(), DashboardFor(options, rpc_options.access)));
    spdlog::info("dashboard on port {}, asked for at http://{}/", dashboard_server->port(),
                 options.http_address);
  }
  AnalysisServiceImpl service(store.get(), HttpAddress(options, dashboard_server.get()));
  rpc_options.registry = registry;
  ABSTRACT_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> rpc_server,
                            RpcServer::Start(rpc_options, {service.Methods()}));
  signals.HoldBack();
  rpc_server->SetServing(true);
  spdlog::info("gRPC on port {}; ready", rpc_server->port());

  const int signal = signals.Wait();
  spdlog::info("signal {}: shutting down", signal);
  rpc_server->Shutdown(kShutdownGrace);
  return absl::OkStatus();
}

absl::Status Run(const Options& options, TerminationSignals& signals) {
  ABSTRACT_RETURN_IF_ERROR(InitLogging("abstract-analysis-server", options.log_level));
  return options.render_once ? RenderOnce(options) : Serve(options, signals);
}

}  // namespace
}  // namespace mechinterp

int main(int argc, char** argv) {
  mechinterp::TerminationSignals signals;
  mechinterp::CommandLine command_line(
      "Keeps the results of studies, ranks components, and serves the dashboard.",
      "abstract-analysis-server");
  mechinterp::Options options;
  command_line.SetVersion(absl::StrCat("abstract-analysis-server ", mechinterp::kVersion));
  mechinterp::AddOptions(command_line.root(), options);
  command_line.UseEnvironmentAndConfig("ANALYSIS", "analysis");
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;

  const absl::Status status = mechinterp::Run(options, signals);
  if (!status.ok()) {
    std::fprintf(stderr, "abstract-analysis-server: %s\n", mechinterp::DescribeStatus(status).c_str());
  }
  mechinterp::EndProcess(status.ok() ? 0 : 1);
}
