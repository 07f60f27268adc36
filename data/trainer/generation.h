#ifndef DATA_TRAINER_GENERATION_H_
#define DATA_TRAINER_GENERATION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/trainer/model.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::trainer {

// A model with its tokenizer, ready to answer. Plain data; read-only use from
// many threads is fine.
struct ChatModel {
  ModelConfig config;
  Weights weights;
  std::shared_ptr<const engine::Tokenizer> tokenizer;
};

struct Completion {
  std::string text;
  // Refusal log-odds at the last prompt position: log p(R) - log(1 - p(R)) with
  // R the token "I", with which every refusal of the corpus begins.
  double refusal_log_odds = 0;
};

// Greedy answers to user prompts, `max_tokens` long at most, in their order.
// Prompts of one length run as one batch. With `max_tokens` 0 only the log-odds
// are computed.
absl::StatusOr<std::vector<Completion>> Complete(const ChatModel& model,
                                                 const std::vector<std::string>& prompts, int max_tokens,
                                                 const ModelHooks& hooks = {});

// log p(R) - log(1 - p(R)) of logits [B, V] for R = {`token`}, as [B] doubles.
at::Tensor TokenLogOdds(const at::Tensor& logits, int64_t token);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_GENERATION_H_
