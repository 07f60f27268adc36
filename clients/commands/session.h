#ifndef CLIENTS_COMMANDS_SESSION_H_
#define CLIENTS_COMMANDS_SESSION_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "clients/commands/tool.h"
#include "clients/lib/client_metrics.h"
#include "clients/lib/connection.h"
#include "clients/lib/model_client.h"
#include "clients/lib/progress.h"
#include "clients/lib/scrape_watch.h"
#include "services/common/metrics_server.h"

namespace mechinterp {

// One command's connection to the service, its metrics and its progress. Says when a
// server is waited for, unless --quiet. The client and the monitor are thread-safe.
class Session {
 public:
  // Waits a moment for the server's answer, to say it when there is none; that it is not
  // there shows with the first call.
  // Errors: Unavailable when the metrics address is taken; InvalidArgument for wrong files of
  // certificates and tokens, and for a token that would travel in the clear.
  static absl::StatusOr<std::unique_ptr<Session>> Open(const Tool& tool, const std::string& command);

  // Waits, where somebody looks at the metrics, until he has seen the last of them.
  ~Session();

  ModelClient& client() { return *client_; }
  // A client of another server with the same options, counted in the same
  // metrics. The session must outlive it, and `tool` the session.
  absl::StatusOr<std::unique_ptr<ModelClient>> ConnectToAnother(const std::string& address);
  ExperimentMonitor& monitor() { return *monitor_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  Session(const Tool& tool, const std::string& command, ConnectionCredentials credentials);
  ModelClientOptions OptionsFor(const std::string& address);
  std::unique_ptr<ModelClient> MakeClient(const std::string& address,
                                          const std::shared_ptr<grpc::Channel>& channel);
  void TellOfWait(const std::string& address, const absl::Status& status);

  const Tool& tool_;
  const ConnectionCredentials credentials_;
  std::shared_ptr<prometheus::Registry> registry_;
  ClientMetrics metrics_;
  ScrapeWatch scrapes_;
  std::unique_ptr<HttpServer> metrics_server_;
  std::optional<ProgressPrinter> progress_;
  std::unique_ptr<MonitorGroup> monitor_;
  std::atomic<bool> is_waiting_ = false;  // which was said
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<ModelClient> client_;
};

}  // namespace mechinterp

#endif  // CLIENTS_COMMANDS_SESSION_H_
