#ifndef CLIENTS_LIB_CLIENT_METRICS_H_
#define CLIENTS_LIB_CLIENT_METRICS_H_

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "clients/lib/monitor.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"

namespace mechinterp {

// The client's Prometheus metrics:
//   abstract_client_rpcs_total{method, code}           attempts of calls
//   abstract_client_runs_total{experiment}             runs of the model
//   abstract_client_steps_done_total{experiment}       prompts, or parts of a sweep
//   abstract_client_experiment_progress_ratio{experiment}  0 to 1, of the current stage
//   abstract_client_refusal_ratio{condition, prompt_class}
//   abstract_client_effect{component, direction}
// Thread-safe.
class ClientMetrics : public ExperimentMonitor {
 public:
  // `experiment`: the subcommand's name.
  ClientMetrics(std::shared_ptr<prometheus::Registry> registry, const std::string& experiment);

  void CountRpc(std::string_view method, const absl::Status& status);

  void Begin(std::string_view stage, int total, int done) override;
  void Advance(int runs) override;
  void SetRefusalRate(std::string_view condition, v1::PromptClass prompt_class, double rate) override;
  void SetEffect(std::string_view component, v1::PatchDirection direction, double effect) override;

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& rpcs_;
  prometheus::Family<prometheus::Gauge>& refusal_;
  prometheus::Family<prometheus::Gauge>& effect_;
  prometheus::Counter& runs_;
  prometheus::Counter& steps_;
  prometheus::Gauge& progress_;
  std::atomic<int> total_ = 0;
  std::atomic<int> done_ = 0;
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_CLIENT_METRICS_H_
