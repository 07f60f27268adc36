#ifndef SERVICES_RPC_SPAN_EXPORTER_H_
#define SERVICES_RPC_SPAN_EXPORTER_H_

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/common/http_post.h"
#include "services/rpc/otlp_spans.h"
#include "services/rpc/request_log.h"
#include "services/rpc/rpc_metrics.h"

namespace mechinterp {

struct SpanExportOptions {
  // Of a collector that speaks OTLP over HTTP: "http://127.0.0.1:4318"; /v1/traces is added. Empty: none.
  std::string endpoint = "";
  std::string service_name = "abstract";
  // Spans that wait; of more the newest are dropped. And of one request to the collector.
  size_t max_queued = 4096;
  size_t max_batch = 512;
  // How long spans gather before they are sent, if they are fewer than a batch.
  absl::Duration interval = absl::Seconds(2);
  absl::Duration timeout = absl::Seconds(10);
  // A batch that could not be sent is sent again so many times, after pauses that double.
  int max_retries = 4;
  absl::Duration first_pause = absl::Seconds(1);
  // At the end what waits is sent, if the collector takes it in that time.
  absl::Duration last_words = absl::Seconds(2);
};

// Sends a span of each request to an OpenTelemetry collector, in a thread of its own: requests neither wait
// for it nor fail by it. What it cannot send in time it drops, and counts. Thread-safe.
class SpanExporter {
 public:
  // `metrics` may be null. Errors: InvalidArgument for an endpoint that is no URL.
  static absl::StatusOr<std::unique_ptr<SpanExporter>> Start(const SpanExportOptions& options,
                                                             std::shared_ptr<RpcMetrics> metrics);
  ~SpanExporter();

  // Takes no time to speak of.
  void Add(RequestRecord request);

 private:
  // Of a batch that is not sent, and whether it is worth sending again.
  struct Failure {
    bool is_final = false;
    absl::Duration pause;  // that the collector asks for
    std::string what;
  };
  enum class Dropped { kQueueFull, kUndelivered, kRefused };

  SpanExporter(const SpanExportOptions& options, std::unique_ptr<HttpPoster> poster,
               std::shared_ptr<RpcMetrics> metrics);

  void Loop();
  std::vector<RequestRecord> TakeBatch();  // waits for it; empty at the end
  void Send(const std::vector<RequestRecord>& batch);
  bool TrySend(const std::string& body, size_t spans, Failure& failure);
  bool Sleep(absl::Duration pause);  // false: the end came
  bool TimeIsUp();
  void Count(Dropped why, size_t spans);
  void Tell(const std::string& what);

  const SpanExportOptions options_;
  const SpanResource resource_;
  const std::unique_ptr<HttpPoster> poster_;
  const std::shared_ptr<RpcMetrics> metrics_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<RequestRecord> queue_;
  absl::Time end_ = absl::InfiniteFuture();  // by which all must be done
  bool stopping_ = false;
  bool is_failing_ = false;  // the thread's own: which was said
  std::thread thread_;       // last: it uses all of the above
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_SPAN_EXPORTER_H_
