// One stream of greedy decoding, beside llama-bench's tg and the bandwidth.

#include <ostream>

#include "services/common/status_macros.h"
#include "services/model/engine/generation.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/llama_bench.h"
#include "tests/benchmarks/machine_peaks.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

// Tokens a second after the first, which is the prefill's.
absl::StatusOr<double> Decode(const std::shared_ptr<const engine::Model>& model, int prompt_tokens,
                              int new_tokens) {
  engine::DirectExecutor executor(model);
  engine::RunContext context{executor, {}, {}};
  const engine::PrefillRequest request{RandomPrompt(model->config(), prompt_tokens, 1), nullptr};
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<engine::Prefilled> prefilled,
                            engine::Prefill(context, absl::MakeConstSpan(&request, 1)));
  engine::SamplingOptions sampling;
  sampling.max_new_tokens = new_tokens + 1;
  sampling.ignore_stop_tokens = true;
  Clock::time_point first, last;
  int count = 0;
  ABSTRACT_RETURN_IF_ERROR(
      engine::Continue(context, prefilled.front(), sampling, [&](engine::TokenId, double) {
        last = Clock::now();
        if (count++ == 0) first = last;
        return absl::OkStatus();
      }).status());
  return (count - 1) / std::chrono::duration<double>(last - first).count();
}

}  // namespace

absl::Status RunDecode(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  PeakMeter meter(options.threads);
  std::optional<LlamaBench> peer = LlamaBench::FromOptions(options, options.threads);
  const int prompt_tokens = options.prompt_tokens_or(8);
  ABSTRACT_RETURN_IF_ERROR(Decode(model, prompt_tokens, 2).status());  // warm up

  Measurements measurements;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    const double before = meter.ReadBandwidth();
    ABSTRACT_ASSIGN_OR_RETURN(const double ours, Decode(model, prompt_tokens, options.new_tokens));
    const double bandwidth = std::max(before, meter.ReadBandwidth());
    const double bytes = ours * static_cast<double>(model->total_weight_bytes());
    measurements.Add("decode", "tokens/s", ours);
    measurements.Add("weights read", "GB/s", bytes / 1e9);
    measurements.Add("memory bandwidth", "GB/s", bandwidth / 1e9);
    measurements.AddRatio("weights read / bandwidth", bytes, bandwidth);
    if (peer) {
      ABSTRACT_ASSIGN_OR_RETURN(const double theirs, peer->Decode(options.new_tokens));
      measurements.Add("llama.cpp decode", "tokens/s", theirs);
      measurements.AddRatio("decode / llama.cpp", ours, theirs);
    }
  }
  measurements.Print(out);
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
