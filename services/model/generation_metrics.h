#ifndef SERVICES_MODEL_GENERATION_METRICS_H_
#define SERVICES_MODEL_GENERATION_METRICS_H_

#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "services/engine/operations/generation.h"

namespace mechinterp {

// What is counted of Generate, under vLLM's names (with our prefix) and in its buckets, so that its
// panels fit. Those of times have smaller ones before: a small model takes milliseconds. Thread-safe.
struct GenerationMetrics {
  explicit GenerationMetrics(prometheus::Registry& registry);

  prometheus::Histogram& time_to_first_token;
  prometheus::Histogram& time_per_output_token;
  prometheus::Histogram& end_to_end;
  prometheus::Histogram& queue;
  prometheus::Histogram& prefill;
  prometheus::Histogram& decode;
  // Tokens of a request.
  prometheus::Histogram& prompt_tokens;
  prometheus::Histogram& new_tokens;
  // mechinterp_request_success_total{finished_reason}
  prometheus::Counter& stopped;    // stop: at a stop token
  prometheus::Counter& exhausted;  // length: had as many tokens as it may have
  prometheus::Counter& aborted;    // abort: nobody waited for it any longer
};

// When things of one generation happened. Told in order, by its handler.
class GenerationMeter {
 public:
  // `arrival`: when the request came. `queued`: how long it waited for its handler's turn.
  GenerationMeter(GenerationMetrics& metrics, absl::Time arrival, absl::Duration queued)
      : metrics_(metrics), arrival_(arrival), queued_(queued) {}

  // A token was chosen. `engine_wait`: how long the request has waited for passes so far.
  void OnToken(absl::Time now, absl::Duration engine_wait);
  void OnEnd(absl::Time now, engine::FinishReason reason, int prompt_tokens);
  void OnAbort() { metrics_.aborted.Increment(); }

 private:
  GenerationMetrics& metrics_;
  const absl::Time arrival_;
  const absl::Duration queued_;
  absl::Time first_, last_;  // tokens
  int tokens_ = 0;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_GENERATION_METRICS_H_
