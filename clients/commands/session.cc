#include "clients/commands/session.h"

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
  client_options_.timeout = absl::Seconds(tool.timeout_seconds);
  client_options_.retry.max_attempts = tool.max_attempts;
  client_options_.on_attempt = [this](std::string_view method, const absl::Status& status) {
    metrics_.CountRpc(method, status);
  };
  client_ = std::make_unique<ModelClient>(v1::ModelService::NewStub(channel_), client_options_);
}

std::unique_ptr<ModelClient> Session::ConnectToAnother(const std::string& address) {
  return std::make_unique<ModelClient>(v1::ModelService::NewStub(ConnectTo(address)), client_options_);
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
