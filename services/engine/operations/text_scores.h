#ifndef SERVICES_ENGINE_OPERATIONS_TEXT_SCORES_H_
#define SERVICES_ENGINE_OPERATIONS_TEXT_SCORES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/hook_plan.h"

namespace mechinterp::engine {

struct TextToScore {
  // All tokens but the first are scored, or where there is a continuation, which is at generated
  // positions, that alone. At least two tokens in all.
  TokenizedPrompt prompt;
  std::vector<TokenId> continuation;
  std::shared_ptr<const HookPlan> plan;  // edits in force; may be null

  int length() const { return prompt.length() + static_cast<int>(continuation.size()); }
  TokenId token(int position) const {
    return position < prompt.length() ? prompt.ids[position] : continuation[position - prompt.length()];
  }
  int first_scored() const { return continuation.empty() ? 1 : prompt.length(); }
};

// Of each token that is scored the natural logarithm of its probability after all before it, text by
// text, in order. Several texts go through the model together, some rows of each at a time, so no
// more logits are there at once. Fails as `sink` does.
absl::Status ScoreTexts(
    RunContext& context, absl::Span<const TextToScore> texts,
    const std::function<absl::Status(size_t index, const std::vector<double>& log_probabilities)>& sink);

// Bytes that it takes besides the plans.
int64_t TextScoreBytes(const ModelConfig& config, absl::Span<const TextToScore> texts);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_TEXT_SCORES_H_
