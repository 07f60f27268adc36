// Many Generate streams through the service, beside the same batch in local calls
// and beside one stream.

#include <ostream>
#include <thread>

#include "services/common/status_macros.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/operations/generation.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/local_service.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

std::vector<engine::TokenizedPrompt> Prompts(const engine::ModelConfig& config, int count, int tokens) {
  std::vector<engine::TokenizedPrompt> prompts;
  for (int i = 0; i < count; ++i) prompts.push_back(RandomPrompt(config, tokens, static_cast<unsigned>(i)));
  return prompts;
}

// The prompts and so many tokens of each, prefill included, with nothing between
// the engine and the caller. Tokens a second.
absl::StatusOr<double> LocalBatch(engine::Executor& executor,
                                  const std::vector<engine::TokenizedPrompt>& prompts, int new_tokens) {
  const Clock::time_point start = Clock::now();
  engine::RunContext context{executor, {}, {}};
  std::vector<engine::PrefillRequest> requests;
  for (const engine::TokenizedPrompt& prompt : prompts) requests.push_back({prompt, nullptr});
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<engine::Prefilled> streams, engine::Prefill(context, requests));
  const engine::SamplingOptions greedy;
  for (int step = 0; step < new_tokens; ++step) {
    std::vector<engine::Segment> segments(streams.size());
    std::vector<engine::Segment*> pointers;
    for (size_t i = 0; i < streams.size(); ++i) {
      segments[i].tokens = {engine::SampleToken(streams[i].logits.values, greedy, step)};
      segments[i].first_position = streams[i].prompt.length() + step;
      segments[i].cache = streams[i].cache;
      segments[i].logits_rows = engine::LogitsRows::kLast;
      pointers.push_back(&segments[i]);
    }
    if (step + 1 == new_tokens) break;  // as the service does: nobody reads what would follow
    ABSTRACT_RETURN_IF_ERROR(executor.Run(pointers, nullptr));
    for (size_t i = 0; i < streams.size(); ++i) streams[i].logits = std::move(segments[i].logits);
  }
  return static_cast<double>(prompts.size()) * new_tokens / SecondsSince(start);
}

// The same through gRPC, a thread and a stream for each prompt.
absl::StatusOr<double> Streams(LocalService& service, const std::vector<engine::TokenizedPrompt>& prompts,
                               int new_tokens) {
  const Clock::time_point start = Clock::now();
  std::vector<absl::Status> statuses(prompts.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < prompts.size(); ++i) {
    threads.emplace_back([&, i] { statuses[i] = service.Generate(prompts[i], new_tokens, [] {}); });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = SecondsSince(start);
  for (const absl::Status& status : statuses) ABSTRACT_RETURN_IF_ERROR(status);
  return static_cast<double>(prompts.size()) * new_tokens / seconds;
}

}  // namespace

absl::Status RunConcurrent(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  ABSTRACT_ASSIGN_OR_RETURN(const auto service,
                            LocalService::Start(model, ModelServiceOptions(), std::max(32, options.streams)));
  engine::DirectExecutor executor(model);
  const auto prompts = Prompts(model->config(), options.streams, options.prompt_tokens_or(8));
  const std::vector<engine::TokenizedPrompt> one = {prompts.front()};
  ABSTRACT_RETURN_IF_ERROR(Streams(*service, prompts, 2).status());  // warm up

  const std::string name = std::to_string(options.streams) + " streams";
  Measurements measurements;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    ABSTRACT_ASSIGN_OR_RETURN(const double streams, Streams(*service, prompts, options.new_tokens));
    ABSTRACT_ASSIGN_OR_RETURN(const double local, LocalBatch(executor, prompts, options.new_tokens));
    ABSTRACT_ASSIGN_OR_RETURN(const double single, Streams(*service, one, options.new_tokens));
    measurements.Add(name, "tokens/s", streams);
    measurements.Add("the same in one local batch", "tokens/s", local);
    measurements.Add("one stream", "tokens/s", single);
    measurements.AddRatio(name + " / local batch", streams, local);
    measurements.AddRatio(name + " / one stream", streams, single);
  }
  measurements.Print(out);
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
