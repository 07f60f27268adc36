#ifndef SERVICES_ENGINE_OPERATIONS_GENERATION_H_
#define SERVICES_ENGINE_OPERATIONS_GENERATION_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/forward/executor.h"
#include "services/engine/operations/sampler.h"

namespace mechinterp::engine {

class KvCache;

// A prompt that has been run and can be continued.
struct Prefilled {
  TokenizedPrompt prompt;
  std::shared_ptr<const HookPlan> plan;  // may be null
  std::shared_ptr<KvCache> cache;        // of the whole prompt
  HostTensor logits;                     // [1, V], at the last position
};

// Runs several prompts, each with its plan, together.
struct PrefillRequest {
  TokenizedPrompt prompt;
  std::shared_ptr<const HookPlan> plan;
  int expected_new_tokens = 0;  // for which the cache keeps room; more may follow
};
absl::StatusOr<std::vector<Prefilled>> Prefill(RunContext& context,
                                               absl::Span<const PrefillRequest> requests);

enum class FinishReason { kStopToken, kMaxNewTokens };

struct Generation {
  std::vector<TokenId> ids;  // with the stop token, if one ended it
  FinishReason finish_reason = FinishReason::kMaxNewTokens;
};

struct ChosenToken {
  TokenId id = 0;
  double log_probability = 0;
  bool stops = false;  // ends the generation, and is no part of its text
};

// Called for each token as it is chosen; an error ends the generation.
using TokenSink = std::function<absl::Status(const ChosenToken& token)>;

// Continues a prompt; the prompt's cache grows. Prompt and max_new_tokens must
// fit the context. `sink` may be null.
absl::StatusOr<Generation> Continue(RunContext& context, Prefilled& prefilled, const SamplingOptions& options,
                                    const TokenSink& sink);

// Bytes that a prompt takes which is run and continued by up to `new_tokens` tokens.
int64_t GenerationBytes(const ModelConfig& config, int64_t prompt_length, int64_t new_tokens,
                        const SamplingOptions& sampling = {});

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_GENERATION_H_
