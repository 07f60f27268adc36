// One stream of greedy decoding, beside llama-bench's tg and the bandwidth.

#include <ostream>

#include "services/common/status_macros.h"
#include "services/engine/operations/generation.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/llama_bench.h"
#include "tests/benchmarks/machine_peaks.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

// Times the tokens after the first, which is the prefill's, and measures the bandwidth before
// and after every few of them: it was seen to change from one second to the next.
class DecodeTimer {
 public:
  DecodeTimer(PeakMeter& meter, int64_t weight_bytes)
      : meter_(meter), weight_bytes_(static_cast<double>(weight_bytes)) {}

  void OnToken() {
    if (before_ == 0) {
      StartStretch(meter_.ReadBandwidth());
    } else if (++tokens_of_stretch_ == kTokensOfAStretch) {
      EndStretch();
    }
  }
  void OnEnd() {
    if (tokens_of_stretch_ > 0) EndStretch();
  }

  double TokensPerSecond() const { return tokens_ / seconds_; }
  double BytesPerSecond() const { return tokens_ * weight_bytes_ / seconds_; }
  // That at which the weights would have been read in the time that reading them alone takes
  // by the bandwidths around each stretch.
  double Bandwidth() const { return tokens_ * weight_bytes_ / seconds_of_reading_; }

 private:
  static constexpr int kTokensOfAStretch = 8;

  void StartStretch(double bandwidth) {
    before_ = bandwidth;
    tokens_of_stretch_ = 0;
    start_ = Clock::now();
  }
  void EndStretch() {
    seconds_ += SecondsSince(start_);
    const double after = meter_.ReadBandwidth();
    tokens_ += tokens_of_stretch_;
    seconds_of_reading_ += tokens_of_stretch_ * weight_bytes_ * (1 / before_ + 1 / after) / 2;
    StartStretch(after);
  }

  PeakMeter& meter_;
  const double weight_bytes_;
  double before_ = 0;  // the bandwidth; 0 until the first token
  int tokens_of_stretch_ = 0;
  Clock::time_point start_;
  int tokens_ = 0;
  double seconds_ = 0, seconds_of_reading_ = 0;
};

absl::Status Decode(const std::shared_ptr<const engine::Model>& model, int prompt_tokens, int new_tokens,
                    DecodeTimer& timer) {
  engine::DirectExecutor executor(model);
  engine::RunContext context{executor, {}, {}};
  const engine::PrefillRequest request{RandomPrompt(model->config(), prompt_tokens, 1), nullptr};
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<engine::Prefilled> prefilled,
                            engine::Prefill(context, absl::MakeConstSpan(&request, 1)));
  engine::SamplingOptions sampling;
  sampling.max_new_tokens = new_tokens + 1;
  sampling.ignore_stop_tokens = true;
  ABSTRACT_RETURN_IF_ERROR(
      engine::Continue(context, prefilled.front(), sampling, [&](const engine::ChosenToken&) {
        timer.OnToken();
        return absl::OkStatus();
      }).status());
  timer.OnEnd();
  return absl::OkStatus();
}

}  // namespace

absl::Status RunDecode(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  PeakMeter meter(options.threads);
  std::optional<LlamaBench> peer = LlamaBench::FromOptions(options, options.threads);
  const int prompt_tokens = options.prompt_tokens_or(8);
  DecodeTimer warm_up(meter, model->total_weight_bytes());
  ABSTRACT_RETURN_IF_ERROR(Decode(model, prompt_tokens, 2, warm_up));

  Measurements measurements;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    DecodeTimer timer(meter, model->total_weight_bytes());
    ABSTRACT_RETURN_IF_ERROR(Decode(model, prompt_tokens, options.new_tokens, timer));
    const double ours = timer.TokensPerSecond();
    measurements.Add("decode", "tokens/s", ours);
    measurements.Add("weights read", "GB/s", timer.BytesPerSecond() / 1e9);
    measurements.Add("memory bandwidth", "GB/s", timer.Bandwidth() / 1e9);
    measurements.AddRatio("weights read / bandwidth", timer.BytesPerSecond(), timer.Bandwidth());
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
