#include "services/model/generation_metrics.h"

#include <algorithm>
#include <string>

namespace mechinterp {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kFirstTokenSeconds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                    1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const Buckets kTokenSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
                               0.4,   0.5,    0.75,  1,    2.5,   5,    7.5,   10,  20,   40,  80};
const Buckets kRequestSeconds = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1,   1.5, 2,   2.5,  5,
                                 10,    15,    20,   30,   40,  50,  60,  120, 240, 480, 960, 1920, 7680};
const Buckets kTokens = {1,   2,    5,    10,   20,     50,     100,    200,
                         500, 1000, 2000, 5000, 10'000, 20'000, 50'000, 100'000};

prometheus::Histogram& Histogram(prometheus::Registry& registry, const std::string& name,
                                 const std::string& help, const Buckets& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

prometheus::Counter& Finished(prometheus::Registry& registry, const std::string& reason) {
  return prometheus::BuildCounter()
      .Name("mechinterp_request_success_total")
      .Help("Generations that ended, by why: stop, length, or abort where nobody waited for them any longer.")
      .Register(registry)
      .Add({{"finished_reason", reason}});
}

void Observe(prometheus::Histogram& histogram, absl::Duration duration) {
  // Clocks can be set back.
  histogram.Observe(std::max(0.0, absl::ToDoubleSeconds(duration)));
}

}  // namespace

GenerationMetrics::GenerationMetrics(prometheus::Registry& registry)
    : time_to_first_token(Histogram(registry, "mechinterp_time_to_first_token_seconds",
                                    "From a generation's coming to its first token.", kFirstTokenSeconds)),
      time_per_output_token(Histogram(registry, "mechinterp_time_per_output_token_seconds",
                                      "From one token of a generation to the next.", kTokenSeconds)),
      end_to_end(Histogram(registry, "mechinterp_e2e_request_latency_seconds",
                           "From a generation's coming to its end.", kRequestSeconds)),
      queue(Histogram(registry, "mechinterp_request_queue_time_seconds",
                      "Of the time to the first token: waiting, for the handler's turn and for passes.",
                      kRequestSeconds)),
      prefill(Histogram(registry, "mechinterp_request_prefill_time_seconds",
                        "Of the time to the first token: the rest, in which the prompt ran.",
                        kRequestSeconds)),
      decode(Histogram(registry, "mechinterp_request_decode_time_seconds",
                       "From a generation's first token to its last.", kRequestSeconds)),
      prompt_tokens(Histogram(registry, "mechinterp_request_prompt_tokens",
                              "Tokens of a generation's prompt.", kTokens)),
      new_tokens(Histogram(registry, "mechinterp_request_generation_tokens", "Tokens that a generation made.",
                           kTokens)),
      stopped(Finished(registry, "stop")),
      exhausted(Finished(registry, "length")),
      aborted(Finished(registry, "abort")) {}

void GenerationMeter::OnToken(absl::Time now, absl::Duration engine_wait) {
  if (tokens_++ == 0) {
    first_ = now;
    const absl::Duration took = now - arrival_;
    const absl::Duration waited = std::min(took, queued_ + engine_wait);
    Observe(metrics_.time_to_first_token, took);
    Observe(metrics_.queue, waited);
    Observe(metrics_.prefill, took - waited);
  } else {
    Observe(metrics_.time_per_output_token, now - last_);
  }
  last_ = now;
}

void GenerationMeter::OnEnd(absl::Time now, engine::FinishReason reason, int prompt_tokens) {
  (reason == engine::FinishReason::kStopToken ? metrics_.stopped : metrics_.exhausted).Increment();
  Observe(metrics_.end_to_end, now - arrival_);
  if (tokens_ > 0) Observe(metrics_.decode, last_ - first_);
  metrics_.prompt_tokens.Observe(prompt_tokens);
  metrics_.new_tokens.Observe(tokens_);
}

}  // namespace mechinterp
