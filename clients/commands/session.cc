#include "clients/commands/session.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/lib/channel_wait.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// Longer than Prometheus's usual interval of 15 s; one that looks less often than that misses the end.
constexpr absl::Duration kPatienceWithScrapes = absl::Seconds(20);

}  // namespace

Session::Session(const Tool& tool, const std::string& command, ConnectionCredentials credentials)
    : tool_(tool),
      credentials_(std::move(credentials)),
      registry_(std::make_shared<prometheus::Registry>()),
      metrics_(registry_, command) {
  std::vector<ExperimentMonitor*> monitors = {&metrics_};
  if (!tool.quiet) {
    progress_.emplace(tool.streams.err, tool.streams.err_is_terminal);
    monitors.push_back(&*progress_);
  }
  monitor_ = std::make_unique<MonitorGroup>(monitors);
  channel_ = ConnectTo(tool.server, credentials_);
  client_ = MakeClient(tool.server, channel_);
}

Session::~Session() {
  if (!scrapes_.HasAny()) return;
  tool_.Note("waiting until the metrics have been looked at once more");
  scrapes_.AwaitOneMore(kPatienceWithScrapes);
}

ModelClientOptions Session::OptionsFor(const std::string& address) {
  ModelClientOptions options;
  options.timeout = absl::Seconds(tool_.timeout_seconds);
  options.retry.max_attempts = tool_.max_attempts;
  options.on_attempt = [this](std::string_view method, const absl::Status& status) {
    metrics_.CountRpc(method, status);
    if (status.ok()) is_waiting_ = false;
  };
  options.on_wait = [this, address](const absl::Status& status, absl::Duration) {
    if (!is_waiting_.exchange(true)) TellOfWait(address, status);
  };
  return options;
}

void Session::TellOfWait(const std::string& address, const absl::Status& status) {
  const std::string what = absl::IsUnavailable(status)
                               ? absl::StrCat("no answer from ", address, "; trying up to ",
                                              tool_.max_attempts, " times (--max-attempts)")
                               : absl::StrCat(address, " is busy; waiting for a place");
  monitor_->Remark(absl::StrCat(what, ": ", std::string(status.message())));
}

std::unique_ptr<ModelClient> Session::MakeClient(const std::string& address,
                                                 const std::shared_ptr<grpc::Channel>& channel) {
  if (!tool_.quiet && !RespondsWithin(*channel, kSoon)) {
    monitor_->Remark(absl::StrCat("no answer from ", address, " yet; still trying"));
  }
  ModelClientOptions options = OptionsFor(address);
  options.sleep = WaitOn(channel);
  return std::make_unique<ModelClient>(v1::ModelService::NewStub(channel), std::move(options));
}

absl::StatusOr<std::unique_ptr<ModelClient>> Session::ConnectToAnother(const std::string& address) {
  ABSTRACT_RETURN_IF_ERROR(MaySend(credentials_, address));
  return MakeClient(address, ConnectTo(address, credentials_));
}

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const Tool& tool, const std::string& command) {
  ABSTRACT_ASSIGN_OR_RETURN(ConnectionCredentials credentials, ReadCredentials(tool.connection));
  ABSTRACT_RETURN_IF_ERROR(MaySend(credentials, tool.server));
  std::unique_ptr<Session> session(new Session(tool, command, std::move(credentials)));
  if (!tool.metrics_address.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(
        session->metrics_server_,
        StartMetricsServer(tool.metrics_address, session->registry_,
                           [&scrapes = session->scrapes_] { scrapes.OnScrape(absl::Now()); }));
    tool.Note("metrics at port " + std::to_string(session->metrics_server_->port()) + ", path /metrics");
  }
  return session;
}

}  // namespace mechinterp
