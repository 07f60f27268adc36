// What gRPC adds to a token and what recording adds to a forward pass.

#include <ostream>
#include <vector>

#include "services/common/status_macros.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/generation.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/local_service.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

constexpr char kRecorded[] = "blocks.*.hook_resid_post";

// Times between calls of Tick, in seconds.
class Gaps {
 public:
  void Tick() {
    const Clock::time_point now = Clock::now();
    if (started_) gaps_.push_back(std::chrono::duration<double>(now - last_).count());
    last_ = now;
    started_ = true;
  }
  double median() const { return Median(gaps_); }

 private:
  bool started_ = false;
  Clock::time_point last_;
  std::vector<double> gaps_;
};

// Median seconds between two tokens of a stream, and with the engine alone.
absl::StatusOr<double> StreamedToken(LocalService& service, const engine::TokenizedPrompt& prompt,
                                     int new_tokens) {
  Gaps gaps;
  ABSTRACT_RETURN_IF_ERROR(service.Generate(prompt, new_tokens, [&] { gaps.Tick(); }));
  return gaps.median();
}

absl::StatusOr<double> LocalToken(engine::Executor& executor, const engine::TokenizedPrompt& prompt,
                                  int new_tokens) {
  engine::RunContext context{executor, {}, {}};
  const engine::PrefillRequest request{prompt, nullptr};
  ABSTRACT_ASSIGN_OR_RETURN(auto prefilled, engine::Prefill(context, absl::MakeConstSpan(&request, 1)));
  engine::SamplingOptions sampling;
  sampling.max_new_tokens = new_tokens;
  sampling.ignore_stop_tokens = true;
  Gaps gaps;
  ABSTRACT_RETURN_IF_ERROR(
      engine::Continue(context, prefilled.front(), sampling, [&](const engine::ChosenToken&) {
        gaps.Tick();
        return absl::OkStatus();
      }).status());
  return gaps.median();
}

// Without logits, which recording the residual stream has no use for either.
absl::StatusOr<double> PlainForward(engine::Executor& executor, const engine::TokenizedPrompt& prompt) {
  const Clock::time_point start = Clock::now();
  engine::RunContext context{executor, {}, {}};
  engine::Segment segment;
  segment.tokens = prompt.ids;
  const std::vector<engine::Segment*> segments = {&segment};
  ABSTRACT_RETURN_IF_ERROR(context.Run(segments));
  return SecondsSince(start);
}

absl::StatusOr<double> RecordingForward(engine::Executor& executor, const engine::TokenizedPrompt& prompt) {
  const Clock::time_point start = Clock::now();
  const engine::ModelConfig& config = executor.model().config();
  engine::RunContext context{executor, {}, {}};
  Violations violations;
  engine::PlanCompiler compiler(config);
  compiler.Add(prompt, {}, {engine::MatchingSites(kRecorded, config), {}}, violations.root());
  if (!violations.empty()) return absl::InternalError(violations.list().front().description);
  ABSTRACT_ASSIGN_OR_RETURN(const auto plans, engine::RunSourcesAndFinish(context, compiler));
  ABSTRACT_RETURN_IF_ERROR(engine::RunWithCache(context, prompt, plans.front()).status());
  return SecondsSince(start);
}

absl::StatusOr<double> RecordingRpc(LocalService& service, const engine::TokenizedPrompt& prompt) {
  const Clock::time_point start = Clock::now();
  ABSTRACT_RETURN_IF_ERROR(service.RunWithCache(prompt, kRecorded).status());
  return SecondsSince(start);
}

}  // namespace

absl::Status RunRpcOverhead(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  ABSTRACT_ASSIGN_OR_RETURN(const auto service, LocalService::Start(model, {}));
  engine::DirectExecutor executor(model);
  const auto prompt = RandomPrompt(model->config(), options.prompt_tokens_or(24), 1);
  ABSTRACT_RETURN_IF_ERROR(StreamedToken(*service, prompt, 2).status());  // warm up
  ABSTRACT_RETURN_IF_ERROR(RecordingRpc(*service, prompt).status());

  Measurements measurements;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    ABSTRACT_ASSIGN_OR_RETURN(const double streamed, StreamedToken(*service, prompt, options.new_tokens));
    ABSTRACT_ASSIGN_OR_RETURN(const double local, LocalToken(executor, prompt, options.new_tokens));
    measurements.Add("a token, streamed", "ms", 1e3 * streamed);
    measurements.Add("a token, engine alone", "ms", 1e3 * local);
    measurements.Add("gRPC and scheduling add", "ms", 1e3 * (streamed - local));

    // Small models pass in a millisecond; one pass of those would say little.
    std::vector<double> plains, recordings, rpcs;
    for (const Clock::time_point start = Clock::now(); plains.empty() || SecondsSince(start) < 1;) {
      ABSTRACT_ASSIGN_OR_RETURN(plains.emplace_back(), PlainForward(executor, prompt));
      ABSTRACT_ASSIGN_OR_RETURN(recordings.emplace_back(), RecordingForward(executor, prompt));
      ABSTRACT_ASSIGN_OR_RETURN(rpcs.emplace_back(), RecordingRpc(*service, prompt));
    }
    const double plain = Median(plains), recording = Median(recordings), rpc = Median(rpcs);
    measurements.Add("plain forward pass", "ms", 1e3 * plain);
    measurements.Add("recording every resid_post", "ms", 1e3 * recording);
    measurements.Add("RunWithCache of every resid_post", "ms", 1e3 * rpc);
    measurements.AddRatio("recording / plain", recording, plain);
    measurements.AddRatio("RunWithCache / plain", rpc, plain);
  }
  measurements.Print(out);
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
