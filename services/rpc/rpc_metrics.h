#ifndef SERVICES_RPC_RPC_METRICS_H_
#define SERVICES_RPC_RPC_METRICS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace mechinterp {

// What a server counts of its calls, under the names that go-grpc-prometheus made customary, so
// that existing Grafana panels fit:
//   grpc_server_started_total         {grpc_type, grpc_service, grpc_method}
//   grpc_server_handled_total         {grpc_type, grpc_service, grpc_method, grpc_code}
//   grpc_server_msg_received_total    {grpc_type, grpc_service, grpc_method}
//   grpc_server_msg_sent_total        {grpc_type, grpc_service, grpc_method}
//   grpc_server_handling_seconds      {grpc_type, grpc_service, grpc_method}   histogram
//   grpc_server_in_flight             {grpc_type, grpc_service, grpc_method}   gauge
// and beside them:
//   mechinterp_queue_seconds          {grpc_method}   histogram: from a call's coming to its turn
//   mechinterp_num_requests_running   {lane}          gauges: those whose handlers run, those that wait
//   mechinterp_num_requests_waiting   {lane}            for their turn, and how many of these there may be
//   mechinterp_queue_capacity         {lane}
//   mechinterp_rejected_total         {reason}        calls turned away, by the reason of their error
//   mechinterp_auth_failures_total                    calls without a good token
//   mechinterp_client_requests_total  {client}        calls that ended, by client (the first 200 of them)
//   mechinterp_client_tokens_total    {client}        their tokens, of prompts and generated
//   mechinterp_connections, mechinterp_connections_limit, mechinterp_connections_refused_total
//   mechinterp_spans_exported_total, mechinterp_spans_dropped_total {reason}
//   mechinterp_serving                                1 while the health service says SERVING
// What they mean to people who watch: README.md of services/model, "What /metrics tells".
// Methods that no service has are one series, `unknown`. Thread-safe.
class RpcMetrics {
 public:
  // The series of one method.
  struct MethodSeries {
    prometheus::Labels labels;
    prometheus::Counter& started;
    prometheus::Counter& received;
    prometheus::Counter& sent;
    prometheus::Histogram& seconds;
    prometheus::Histogram& queue_seconds;
    prometheus::Gauge& in_flight;
  };

  // Of spans: sent, and dropped because too many wait, or the collector is away, or refuses them.
  struct SpanSeries {
    prometheus::Counter& exported;
    prometheus::Counter& queue_full;
    prometheus::Counter& undelivered;
    prometheus::Counter& refused;
  };
  // Of a queue.
  struct LaneSeries {
    prometheus::Gauge& running;
    prometheus::Gauge& waiting;
  };

  explicit RpcMetrics(std::shared_ptr<prometheus::Registry> registry);

  // `type`: unary or server_stream. Series are made once, when the server is built.
  MethodSeries Series(std::string_view type, std::string_view service, std::string_view method);

  // `lane`: work or lookup.
  LaneSeries Lane(const std::string& lane, int capacity);

  void CountHandled(const MethodSeries& method, grpc::StatusCode code, absl::Duration took);
  void CountRejection(const std::string& reason);
  // A call of this client that ended, and what it took of tokens.
  void CountClient(const std::string& client, int64_t tokens);

 private:
  // The series of one client.
  struct ClientSeries {
    prometheus::Counter* requests;
    prometheus::Counter* tokens;
  };

  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& started_;
  prometheus::Family<prometheus::Counter>& handled_;
  prometheus::Family<prometheus::Counter>& received_;
  prometheus::Family<prometheus::Counter>& sent_;
  prometheus::Family<prometheus::Histogram>& seconds_;
  prometheus::Family<prometheus::Histogram>& queue_seconds_;
  prometheus::Family<prometheus::Gauge>& in_flight_;
  prometheus::Family<prometheus::Gauge>& running_;
  prometheus::Family<prometheus::Gauge>& waiting_;
  prometheus::Family<prometheus::Gauge>& capacity_;
  prometheus::Family<prometheus::Counter>& rejected_;
  prometheus::Family<prometheus::Counter>& by_client_;
  prometheus::Family<prometheus::Counter>& tokens_by_client_;
  std::mutex mutex_;
  std::map<std::string, ClientSeries> clients_;

 public:
  prometheus::Counter& auth_failures;
  prometheus::Gauge& connections;
  prometheus::Gauge& connections_limit;
  prometheus::Counter& connections_refused;
  prometheus::Gauge& serving;
  const SpanSeries spans;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_RPC_METRICS_H_
