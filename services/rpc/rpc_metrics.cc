#include "services/rpc/rpc_metrics.h"

#include <utility>

#include "services/common/status.h"

namespace mechinterp {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// Of what any server turns away: there from the start, so that the first of them is an increase.
constexpr const char* kReasons[] = {"QUEUE_FULL",   "CLIENT_QUEUE_FULL", "TOO_MANY_REQUESTS",
                                    "TOKEN_RATE",   "TOO_MANY_FAILURES", "CLIENT_STALLED",
                                    "OUT_OF_MEMORY"};
constexpr size_t kMostClients = 200;  // that have a series of their own

// From milliseconds (a lookup) to hours (a study's sweep).
const Buckets& LatencyBuckets() {
  static const Buckets buckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                  1,     2.5,    5,     10,   30,    60,   300, 1800};
  return buckets;
}

prometheus::Family<prometheus::Counter>& Counters(prometheus::Registry& registry, const std::string& name,
                                                  const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Histogram>& Histograms(prometheus::Registry& registry, const std::string& name,
                                                      const std::string& help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Gauge>& Gauges(prometheus::Registry& registry, const std::string& name,
                                              const std::string& help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

RpcMetrics::SpanSeries Spans(prometheus::Registry& registry) {
  auto& dropped = Counters(registry, "mechinterp_spans_dropped_total",
                           "Spans that were not exported, by reason: queue_full, undelivered or refused.");
  return {Counters(registry, "mechinterp_spans_exported_total", "Spans of requests sent to --otlp-endpoint.")
              .Add({}),
          dropped.Add({{"reason", "queue_full"}}), dropped.Add({{"reason", "undelivered"}}),
          dropped.Add({{"reason", "refused"}})};
}

}  // namespace

RpcMetrics::RpcMetrics(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)),
      started_(Counters(*registry_, "grpc_server_started_total", "RPCs begun.")),
      handled_(Counters(*registry_, "grpc_server_handled_total", "RPCs ended, by status code.")),
      received_(Counters(*registry_, "grpc_server_msg_received_total", "Messages received.")),
      sent_(Counters(*registry_, "grpc_server_msg_sent_total", "Messages sent.")),
      seconds_(Histograms(*registry_, "grpc_server_handling_seconds",
                          "Time from the start of an RPC to its end, in seconds.")),
      queue_seconds_(Histograms(*registry_, "mechinterp_queue_seconds",
                                "Time that a request waited for its turn to begin, in seconds.")),
      in_flight_(Gauges(*registry_, "grpc_server_in_flight", "RPCs being handled now.")),
      running_(Gauges(*registry_, "mechinterp_num_requests_running",
                      "Requests whose handlers run, by lane: work runs the model, lookup does not.")),
      waiting_(Gauges(*registry_, "mechinterp_num_requests_waiting",
                      "Requests that wait for their turn, by lane.")),
      capacity_(Gauges(*registry_, "mechinterp_queue_capacity",
                       "Requests that may wait before others are turned away, by lane.")),
      rejected_(Counters(*registry_, "mechinterp_rejected_total", "RPCs turned away, by reason.")),
      by_client_(Counters(*registry_, "mechinterp_client_requests_total", "RPCs ended, by client.")),
      tokens_by_client_(Counters(*registry_, "mechinterp_client_tokens_total",
                                 "Tokens of prompts and generated ones, by client.")),
      auth_failures(
          Counters(*registry_, "mechinterp_auth_failures_total", "RPCs without a good token.").Add({})),
      connections(Gauges(*registry_, "mechinterp_connections", "Open gRPC connections.").Add({})),
      connections_limit(
          Gauges(*registry_, "mechinterp_connections_limit", "gRPC connections that may be open.").Add({})),
      connections_refused(Counters(*registry_, "mechinterp_connections_refused_total",
                                   "gRPC connections closed at once: too many, or no file descriptor left.")
                              .Add({})),
      serving(Gauges(*registry_, "mechinterp_serving", "1 while the health service says SERVING, else 0.")
                  .Add({})),
      spans(Spans(*registry_)) {
  for (const char* reason : kReasons) rejected_.Add({{"reason", reason}});
}

RpcMetrics::MethodSeries RpcMetrics::Series(std::string_view type, std::string_view service,
                                            std::string_view method) {
  const prometheus::Labels labels = {{"grpc_type", std::string(type)},
                                     {"grpc_service", std::string(service)},
                                     {"grpc_method", std::string(method)}};
  return {labels,
          started_.Add(labels),
          received_.Add(labels),
          sent_.Add(labels),
          seconds_.Add(labels, LatencyBuckets()),
          queue_seconds_.Add({{"grpc_method", std::string(method)}}, LatencyBuckets()),
          in_flight_.Add(labels)};
}

RpcMetrics::LaneSeries RpcMetrics::Lane(const std::string& lane, int capacity) {
  const prometheus::Labels labels = {{"lane", lane}};
  capacity_.Add(labels).Set(capacity);
  return {running_.Add(labels), waiting_.Add(labels)};
}

void RpcMetrics::CountHandled(const MethodSeries& method, grpc::StatusCode code, absl::Duration took) {
  prometheus::Labels labels = method.labels;
  labels.emplace("grpc_code", CodeName(code));
  handled_.Add(labels).Increment();
  method.seconds.Observe(absl::ToDoubleSeconds(took));
}

void RpcMetrics::CountRejection(const std::string& reason) {
  rejected_.Add({{"reason", reason}}).Increment();
}

void RpcMetrics::CountClient(const std::string& client, int64_t tokens) {
  const std::lock_guard lock(mutex_);
  auto found = clients_.find(client);
  if (found == clients_.end()) {
    const std::string label = clients_.size() < kMostClients ? client : "other";
    const ClientSeries series = {&by_client_.Add({{"client", label}}),
                                 &tokens_by_client_.Add({{"client", label}})};
    if (label == "other") {
      series.requests->Increment();
      series.tokens->Increment(static_cast<double>(tokens));
      return;
    }
    found = clients_.emplace(client, series).first;
  }
  found->second.requests->Increment();
  found->second.tokens->Increment(static_cast<double>(tokens));
}

}  // namespace mechinterp
