#include "services/engine/operations/generation.h"

#include <algorithm>
#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {
namespace {

// Few continuations are longer; the cache of one that is grows as it needs.
constexpr int64_t kMostTokensToReserve = 8192;

int64_t ReservedPositions(int64_t prompt_length, int64_t new_tokens) {
  return prompt_length + std::min(new_tokens, kMostTokensToReserve);
}

bool Contains(const std::vector<TokenId>& ids, TokenId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool Stops(const Model& model, const SamplingOptions& options, TokenId id) {
  return Contains(options.stop_token_ids, id) ||
         (!options.ignore_stop_tokens && Contains(model.config().stop_token_ids, id));
}

}  // namespace

absl::StatusOr<std::vector<Prefilled>> Prefill(RunContext& context,
                                               absl::Span<const PrefillRequest> requests) {
  std::vector<Segment> segments(requests.size());
  std::vector<Segment*> pointers;
  for (size_t i = 0; i < requests.size(); ++i) {
    segments[i].tokens = requests[i].prompt.ids;
    segments[i].plan = requests[i].plan;
    segments[i].cache = std::make_shared<KvCache>(context.executor.model().config());
    segments[i].cache->Reserve(
        ReservedPositions(requests[i].prompt.length(), requests[i].expected_new_tokens));
    segments[i].logits_rows = LogitsRows::kLast;
    pointers.push_back(&segments[i]);
  }
  ABSTRACT_RETURN_IF_ERROR(context.Run(pointers));
  std::vector<Prefilled> prefilled;
  for (size_t i = 0; i < requests.size(); ++i) {
    prefilled.push_back(
        {requests[i].prompt, requests[i].plan, segments[i].cache, std::move(segments[i].logits)});
  }
  return prefilled;
}

absl::StatusOr<Generation> Continue(RunContext& context, Prefilled& prefilled, const SamplingOptions& options,
                                    const TokenSink& sink) {
  Generation generation;
  Sampler sampler(options);
  // One segment for all steps: its buffers are used again.
  Segment segment;
  segment.plan = prefilled.plan;
  segment.cache = prefilled.cache;
  segment.logits_rows = LogitsRows::kLast;
  Segment* const segments[] = {&segment};
  absl::Span<const float> logits = prefilled.logits.values;
  for (int step = 0; step < options.max_new_tokens; ++step) {
    const TokenId id = sampler.Choose(logits, step);
    generation.ids.push_back(id);
    const bool stops = Stops(context.executor.model(), options, id);
    if (sink) ABSTRACT_RETURN_IF_ERROR(sink({id, LogProbability(logits, id), stops}));
    if (stops) {
      generation.finish_reason = FinishReason::kStopToken;
      return generation;
    }
    if (step + 1 == options.max_new_tokens) break;  // nobody reads what would follow
    segment.tokens.assign(1, id);
    segment.first_position = prefilled.prompt.length() + step;
    ABSTRACT_RETURN_IF_ERROR(context.Run(segments));
    logits = segment.logits.values;
  }
  return generation;
}

int64_t GenerationBytes(const ModelConfig& config, int64_t prompt_length, int64_t new_tokens,
                        const SamplingOptions& sampling) {
  // The prompt's last row of logits, and the newest token's.
  const int64_t logits = 2 * int64_t{config.vocabulary_size} * static_cast<int64_t>(sizeof(float));
  return GrowingCacheBytes(config, ReservedPositions(prompt_length, new_tokens), prompt_length + new_tokens) +
         logits + SamplerBytes(sampling, config.vocabulary_size);
}

}  // namespace mechinterp::engine
