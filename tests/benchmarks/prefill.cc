// One prompt, beside llama-bench's pp and the arithmetic peak.

#include <ostream>

#include "services/common/status_macros.h"
#include "services/engine/operations/generation.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/llama_bench.h"
#include "tests/benchmarks/machine_peaks.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

// Seconds for a prompt's keys, values and last logits.
absl::StatusOr<double> PrefillSeconds(const std::shared_ptr<const engine::Model>& model, int prompt_tokens) {
  engine::DirectExecutor executor(model);
  engine::RunContext context{executor, {}, {}};
  const engine::PrefillRequest request{RandomPrompt(model->config(), prompt_tokens, 1), nullptr};
  const Clock::time_point start = Clock::now();
  ABSTRACT_RETURN_IF_ERROR(engine::Prefill(context, absl::MakeConstSpan(&request, 1)).status());
  return SecondsSince(start);
}

}  // namespace

absl::Status RunPrefill(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  PeakMeter meter(options.threads);
  std::optional<LlamaBench> peer = LlamaBench::FromOptions(options, options.threads);
  const int prompt_tokens = options.prompt_tokens_or(128);
  ABSTRACT_RETURN_IF_ERROR(PrefillSeconds(model, prompt_tokens).status());  // warm up

  Measurements measurements;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    const double float32_before = meter.Float32Peak(), bfloat16_before = meter.BFloat16Peak();
    ABSTRACT_ASSIGN_OR_RETURN(const double seconds, PrefillSeconds(model, prompt_tokens));
    const double float32 = std::max(float32_before, meter.Float32Peak());
    const double bfloat16 = std::max(bfloat16_before, meter.BFloat16Peak());
    const double operations = WeightOperations(model->config(), prompt_tokens, 1) / seconds;
    measurements.Add("prefill", "tokens/s", prompt_tokens / seconds);
    measurements.Add("matrix products", "GFLOP/s", operations / 1e9);
    measurements.Add("fp32 peak", "GFLOP/s", float32 / 1e9);
    measurements.AddRatio("matrix products / fp32 peak", operations, float32);
    if (bfloat16 > 0) {
      measurements.Add("bf16 peak", "GFLOP/s", bfloat16 / 1e9);
      measurements.AddRatio("matrix products / bf16 peak", operations, bfloat16);
    }
    if (peer) {
      ABSTRACT_ASSIGN_OR_RETURN(const double theirs, peer->Prefill(prompt_tokens));
      measurements.Add("llama.cpp prefill", "tokens/s", theirs);
      measurements.AddRatio("prefill / llama.cpp", prompt_tokens / seconds, theirs);
    }
  }
  measurements.Print(out);
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
