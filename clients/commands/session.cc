#include "clients/commands/session.h"

#include <utility>
#include <vector>

#include "services/common/status_macros.h"

namespace mechinterp {

Session::Session(const Tool& tool, const std::string& command)
    : registry_(std::make_shared<prometheus::Registry>()), metrics_(registry_, command) {
  std::vector<ExperimentMonitor*> monitors = {&metrics_};
  if (!tool.quiet) {
    progress_.emplace(tool.streams.err, tool.streams.err_is_terminal);
    monitors.push_back(&*progress_);
  }
  monitor_ = std::make_unique<MonitorGroup>(monitors);
  channel_ = ConnectTo(tool.server);
  ModelClientOptions options;
  options.timeout = absl::Seconds(tool.timeout_seconds);
  options.retry.max_attempts = tool.max_attempts;
  options.on_attempt = [this](std::string_view method, const absl::Status& status) {
    metrics_.CountRpc(method, status);
  };
  client_ = std::make_unique<ModelClient>(v1::ModelService::NewStub(channel_), std::move(options));
}

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const Tool& tool, const std::string& command) {
  std::unique_ptr<Session> session(new Session(tool, command));
  if (!tool.metrics_address.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(session->metrics_server_,
                              StartMetricsServer(tool.metrics_address, session->registry_));
    tool.Note("metrics at port " + std::to_string(session->metrics_server_->port()) + ", path /metrics");
  }
  return session;
}

}  // namespace mechinterp
