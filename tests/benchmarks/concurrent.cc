// Many Generate streams through the service, without edits and each with edits of its own, beside the
// same batch in local calls and beside one stream.

#include <memory>
#include <optional>
#include <ostream>
#include <thread>

#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/violations.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/interventions/plan_compiler.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/logit_metrics.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/local_service.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

// Of a stream: one head silenced and one MLP scaled, for as long as it runs.
struct EditsOfStream {
  int layer = 0;
  int head = 0;
  double factor = 1;
};

struct Work {
  engine::TokenizedPrompt prompt;
  std::optional<EditsOfStream> edits;
};

// No two streams with the same edits, as far as there are heads.
std::vector<Work> WorkOf(const engine::ModelConfig& config, int count, int tokens, bool edited) {
  std::vector<Work> all;
  for (int i = 0; i < count; ++i) {
    Work work{RandomPrompt(config, tokens, static_cast<unsigned>(i)), std::nullopt};
    if (edited) {
      const int layers = config.layer_count();
      work.edits = EditsOfStream{i % layers, i / layers % config.head_count, 0.5 + 0.01 * i};
    }
    all.push_back(std::move(work));
  }
  return all;
}

v1::GenerateRequest RequestFor(const Work& work, int new_tokens) {
  v1::GenerateRequest request;
  for (engine::TokenId id : work.prompt.ids) {
    request.mutable_prompt()->mutable_token_ids()->add_ids(static_cast<uint32_t>(id));
  }
  request.mutable_sampling()->set_max_new_tokens(static_cast<uint32_t>(new_tokens));
  request.mutable_sampling()->set_ignore_stop_tokens(true);
  if (!work.edits) return request;
  const auto layer = static_cast<uint32_t>(work.edits->layer);
  v1::Intervention& head = *request.add_interventions();
  head.mutable_site()->set_point(v1::HOOK_POINT_Z);
  head.mutable_site()->set_layer(layer);
  head.mutable_selector()->add_heads(static_cast<uint32_t>(work.edits->head));
  head.mutable_zeroing();
  v1::Intervention& mlp = *request.add_interventions();
  mlp.mutable_site()->set_point(v1::HOOK_POINT_MLP_OUT);
  mlp.mutable_site()->set_layer(layer);
  mlp.mutable_scaling()->set_factor(work.edits->factor);
  return request;
}

std::shared_ptr<const engine::HookPlan> PlanFor(const engine::ModelConfig& config, const Work& work) {
  if (!work.edits) return nullptr;
  engine::Intervention head{{engine::HookPoint::kZ, work.edits->layer}, {}, engine::Zeroing{}};
  head.selector.heads = {work.edits->head};
  const engine::Intervention mlp{
      {engine::HookPoint::kMlpOut, work.edits->layer}, {}, engine::Scaling{work.edits->factor}};
  engine::PlanCompiler compiler(config);
  Violations none;
  compiler.Add(work.prompt, {head, mlp}, {}, none.root());
  return compiler.Finish({}).front();
}

// What a stream brought, to compare bit by bit.
struct Text {
  std::vector<uint32_t> ids;
  std::vector<double> log_probabilities;
  bool operator==(const Text&) const = default;
};

struct Outcome {
  std::vector<Text> texts;
  double tokens_per_second = 0;
};

// The prompts and so many tokens of each, prefill included, with nothing between
// the engine and the caller.
absl::StatusOr<Outcome> LocalBatch(engine::Executor& executor, const std::vector<Work>& all, int new_tokens) {
  const Clock::time_point start = Clock::now();
  engine::RunContext context{executor, {}, {}};
  std::vector<engine::PrefillRequest> requests;
  for (const Work& work : all)
    requests.push_back({work.prompt, PlanFor(executor.model().config(), work), new_tokens});
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<engine::Prefilled> streams, engine::Prefill(context, requests));
  Outcome outcome;
  outcome.texts.resize(streams.size());
  const engine::SamplingOptions greedy;
  for (int step = 0; step < new_tokens; ++step) {
    std::vector<engine::Segment> segments(streams.size());
    std::vector<engine::Segment*> pointers;
    for (size_t i = 0; i < streams.size(); ++i) {
      const engine::TokenId id = engine::SampleToken(streams[i].logits.values, greedy, step);
      outcome.texts[i].ids.push_back(static_cast<uint32_t>(id));
      outcome.texts[i].log_probabilities.push_back(engine::LogProbability(streams[i].logits.values, id));
      segments[i].tokens = {id};
      segments[i].first_position = streams[i].prompt.length() + step;
      segments[i].prompt_length = streams[i].prompt.length();
      segments[i].cache = streams[i].cache;
      segments[i].plan = streams[i].plan;
      segments[i].logits_rows = engine::LogitsRows::kLast;
      pointers.push_back(&segments[i]);
    }
    if (step + 1 == new_tokens) break;  // as the service does: nobody reads what would follow
    ABSTRACT_RETURN_IF_ERROR(executor.Run(pointers, nullptr));
    for (size_t i = 0; i < streams.size(); ++i) streams[i].logits = std::move(segments[i].logits);
  }
  outcome.tokens_per_second = static_cast<double>(all.size()) * new_tokens / SecondsSince(start);
  return outcome;
}

// The same through gRPC, a client with a connection of its own for each.
class Clients {
 public:
  Clients(const LocalService& service, int count) {
    for (int i = 0; i < count; ++i) stubs_.push_back(service.NewStub());
  }

  absl::StatusOr<Outcome> Generate(const std::vector<Work>& all, int new_tokens) {
    const Clock::time_point start = Clock::now();
    Outcome outcome;
    outcome.texts.resize(all.size());
    std::vector<absl::Status> statuses(all.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < all.size(); ++i) {
      threads.emplace_back(
          [&, i] { statuses[i] = Read(*stubs_[i], RequestFor(all[i], new_tokens), outcome.texts[i]); });
    }
    for (std::thread& thread : threads) thread.join();
    outcome.tokens_per_second = static_cast<double>(all.size()) * new_tokens / SecondsSince(start);
    for (const absl::Status& status : statuses) ABSTRACT_RETURN_IF_ERROR(status);
    return outcome;
  }

 private:
  static absl::Status Read(v1::ModelService::Stub& stub, const v1::GenerateRequest& request, Text& text) {
    grpc::ClientContext context;
    const auto reader = stub.Generate(&context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
      if (!response.has_token()) continue;
      text.ids.push_back(response.token().token_id());
      text.log_probabilities.push_back(response.token().log_probability());
    }
    return FromGrpcStatus(reader->Finish());
  }

  std::vector<std::unique_ptr<v1::ModelService::Stub>> stubs_;
};

absl::Status Compare(const Outcome& streams, const Outcome& local) {
  if (streams.texts == local.texts) return absl::OkStatus();
  return absl::InternalError("the streams' tokens are not those of the local batch");
}

}  // namespace

absl::Status RunConcurrent(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  ABSTRACT_ASSIGN_OR_RETURN(const auto service,
                            LocalService::Start(model, ModelServiceOptions(), std::max(32, options.streams)));
  engine::DirectExecutor executor(model);
  Clients clients(*service, options.streams);
  const int prompt_tokens = options.prompt_tokens_or(8);
  const std::vector<Work> plain = WorkOf(model->config(), options.streams, prompt_tokens, /*edited=*/false);
  const std::vector<Work> edited = WorkOf(model->config(), options.streams, prompt_tokens, /*edited=*/true);
  ABSTRACT_RETURN_IF_ERROR(clients.Generate(edited, 2).status());  // warm up

  const std::string name = std::to_string(options.streams) + " streams";
  const std::string with_edits = name + ", each with edits of its own";
  Measurements measurements;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    ABSTRACT_ASSIGN_OR_RETURN(const Outcome streams, clients.Generate(plain, options.new_tokens));
    ABSTRACT_ASSIGN_OR_RETURN(const Outcome local, LocalBatch(executor, plain, options.new_tokens));
    ABSTRACT_ASSIGN_OR_RETURN(const Outcome edited_streams, clients.Generate(edited, options.new_tokens));
    ABSTRACT_ASSIGN_OR_RETURN(const Outcome edited_local, LocalBatch(executor, edited, options.new_tokens));
    ABSTRACT_ASSIGN_OR_RETURN(const Outcome single, clients.Generate({plain.front()}, options.new_tokens));
    ABSTRACT_RETURN_IF_ERROR(Compare(streams, local));
    ABSTRACT_RETURN_IF_ERROR(Compare(edited_streams, edited_local));
    measurements.Add(name, "tokens/s", streams.tokens_per_second);
    measurements.Add("the same in one local batch", "tokens/s", local.tokens_per_second);
    measurements.Add("one stream", "tokens/s", single.tokens_per_second);
    measurements.Add(with_edits, "tokens/s", edited_streams.tokens_per_second);
    measurements.Add("those in one local batch", "tokens/s", edited_local.tokens_per_second);
    measurements.AddRatio(name + " / local batch", streams.tokens_per_second, local.tokens_per_second);
    measurements.AddRatio(with_edits + " / local batch", edited_streams.tokens_per_second,
                          edited_local.tokens_per_second);
    measurements.AddRatio(name + " / one stream", streams.tokens_per_second, single.tokens_per_second);
  }
  measurements.Print(out);
  out << "the streams' tokens and log-probabilities are those of the local batches, bit by bit\n";
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
