#include "services/common/rpc_metrics.h"

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "grpcpp/server_context.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "services/common/rpc_outcome.h"
#include "services/common/status.h"

namespace mechinterp {
namespace {

using Clock = std::chrono::steady_clock;
using grpc::experimental::InterceptionHookPoints;

struct RpcMetrics {
  explicit RpcMetrics(std::shared_ptr<prometheus::Registry> owner)
      : registry(std::move(owner)),
        started(prometheus::BuildCounter()
                    .Name("grpc_server_started_total")
                    .Help("RPCs that reached a handler")
                    .Register(*registry)),
        handled(prometheus::BuildCounter()
                    .Name("grpc_server_handled_total")
                    .Help("RPCs that were answered, by status code")
                    .Register(*registry)),
        seconds(prometheus::BuildHistogram()
                    .Name("grpc_server_handling_seconds")
                    .Help("Time from the start of an RPC to its status, in seconds")
                    .Register(*registry)),
        in_flight(prometheus::BuildGauge()
                      .Name("grpc_server_in_flight")
                      .Help("RPCs being handled now")
                      .Register(*registry)) {}

  std::shared_ptr<prometheus::Registry> registry;
  prometheus::Family<prometheus::Counter>& started;
  prometheus::Family<prometheus::Counter>& handled;
  prometheus::Family<prometheus::Histogram>& seconds;
  prometheus::Family<prometheus::Gauge>& in_flight;
};

// "/package.Service/Method" taken apart.
prometheus::Labels MethodLabels(std::string_view path) {
  if (path.starts_with('/')) path.remove_prefix(1);
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {{"grpc_service", ""}, {"grpc_method", std::string(path)}};
  return {{"grpc_service", std::string(path.substr(0, slash))},
          {"grpc_method", std::string(path.substr(slash + 1))}};
}

// From milliseconds (a lookup) to minutes (a sweep over an 8B model).
const prometheus::Histogram::BucketBoundaries& LatencyBuckets() {
  static const prometheus::Histogram::BucketBoundaries buckets = {
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
  return buckets;
}

// Lives as long as its RPC.
class RpcMetricsInterceptor : public grpc::experimental::Interceptor {
 public:
  RpcMetricsInterceptor(std::shared_ptr<RpcMetrics> metrics, grpc::experimental::ServerRpcInfo* info)
      : info_(info),
        metrics_(std::move(metrics)),
        labels_(MethodLabels(info->method())),
        in_flight_(metrics_->in_flight.Add(labels_)),
        start_(Clock::now()) {
    metrics_->started.Add(labels_).Increment();
    in_flight_.Increment();
  }

  ~RpcMetricsInterceptor() override {
    in_flight_.Decrement();
    // An RPC that ends without a status was abandoned by its client.
    if (!recorded_) Record(grpc::StatusCode::CANCELLED);
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    // The context knows its deadline from here on, and is gone before this is.
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      deadline_ = info_->server_context()->deadline();
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      Record(methods->GetSendStatus().error_code());
    }
    methods->Proceed();
  }

 private:
  void Record(grpc::StatusCode code) {
    recorded_ = true;
    prometheus::Labels labels = labels_;
    const auto now = std::chrono::system_clock::now();
    labels.emplace("grpc_code", CodeName(OutcomeOf(code, begin_, deadline_, now)));
    metrics_->handled.Add(labels).Increment();
    const std::chrono::duration<double> elapsed = Clock::now() - start_;
    metrics_->seconds.Add(labels_, LatencyBuckets()).Observe(elapsed.count());
  }

  grpc::experimental::ServerRpcInfo* const info_;
  std::shared_ptr<RpcMetrics> metrics_;
  prometheus::Labels labels_;
  prometheus::Gauge& in_flight_;
  Clock::time_point start_;
  const std::chrono::system_clock::time_point begin_ = std::chrono::system_clock::now();
  std::chrono::system_clock::time_point deadline_ = std::chrono::system_clock::time_point::max();
  bool recorded_ = false;
};

class RpcMetricsFactory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit RpcMetricsFactory(std::shared_ptr<prometheus::Registry> registry)
      : metrics_(std::make_shared<RpcMetrics>(std::move(registry))) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    return new RpcMetricsInterceptor(metrics_, info);
  }

 private:
  std::shared_ptr<RpcMetrics> metrics_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeRpcMetricsFactory(
    std::shared_ptr<prometheus::Registry> registry) {
  return std::make_unique<RpcMetricsFactory>(std::move(registry));
}

}  // namespace mechinterp
