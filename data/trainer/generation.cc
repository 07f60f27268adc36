#include "data/trainer/generation.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <map>

#include "data/trainer/encoding.h"
#include "services/common/status_macros.h"

namespace mechinterp::trainer {
namespace {

constexpr size_t kLargestBatch = 64;

// Answers prompts of one length, [B, T].
void CompleteBatch(const ChatModel& model, const at::Tensor& ids, const std::vector<size_t>& indices,
                   int max_tokens, const ModelHooks& hooks, std::vector<Completion>& completions) {
  const c10::AutoGradMode no_gradients(false);
  const int64_t end = *model.tokenizer->TokenToId("<|eot_id|>");
  const int64_t refusal = *model.tokenizer->TokenToId("I");
  KvCache cache;
  at::Tensor input = ids;
  std::vector<std::vector<engine::TokenId>> answers(indices.size());
  std::vector<bool> done(indices.size(), false);
  for (int step = 0;; ++step) {
    const at::Tensor hidden = Forward(model.config, model.weights, input, &cache, hooks);
    const at::Tensor logits = Logits(model.weights, hidden.select(1, -1));  // [B, V]
    if (step == 0) {
      const at::Tensor log_odds = TokenLogOdds(logits, refusal);
      for (size_t i = 0; i < indices.size(); ++i) {
        completions[indices[i]].refusal_log_odds = log_odds.data_ptr<double>()[i];
      }
    }
    if (step == max_tokens) break;
    const at::Tensor next = at::argmax(logits, -1);
    bool all_done = true;
    for (size_t i = 0; i < indices.size(); ++i) {
      const int64_t token = next.data_ptr<int64_t>()[i];
      if (token == end) done[i] = true;
      if (!done[i]) answers[i].push_back(static_cast<engine::TokenId>(token));
      all_done = all_done && done[i];
    }
    if (all_done) break;
    input = next.unsqueeze(1);
  }
  for (size_t i = 0; i < indices.size(); ++i) {
    completions[indices[i]].text = model.tokenizer->Decode(answers[i]);
  }
}

}  // namespace

at::Tensor TokenLogOdds(const at::Tensor& logits, int64_t token) {
  const at::Tensor wide = logits.to(at::kDouble);
  const at::Tensor others = wide.clone();
  others.select(1, token).fill_(-std::numeric_limits<double>::infinity());
  return (wide.select(1, token) - at::logsumexp(others, 1)).contiguous();
}

absl::StatusOr<std::vector<Completion>> Complete(const ChatModel& model,
                                                 const std::vector<std::string>& prompts, int max_tokens,
                                                 const ModelHooks& hooks) {
  std::map<size_t, std::vector<size_t>> by_length;
  std::vector<std::vector<int64_t>> encoded;
  for (const std::string& prompt : prompts) {
    ABSTRACT_ASSIGN_OR_RETURN(EncodedPrompt ids, EncodePrompt(*model.tokenizer, prompt));
    by_length[ids.ids.size()].push_back(encoded.size());
    encoded.push_back(std::move(ids.ids));
  }
  std::vector<Completion> completions(prompts.size());
  for (const auto& [length, members] : by_length) {
    for (size_t begin = 0; begin < members.size(); begin += kLargestBatch) {
      const size_t count = std::min(kLargestBatch, members.size() - begin);
      const std::vector<size_t> indices(members.begin() + static_cast<std::ptrdiff_t>(begin),
                                        members.begin() + static_cast<std::ptrdiff_t>(begin + count));
      std::vector<int64_t> flat;
      for (size_t i : indices) flat.insert(flat.end(), encoded[i].begin(), encoded[i].end());
      const at::Tensor ids =
          at::tensor(flat, at::kLong).view({static_cast<int64_t>(count), static_cast<int64_t>(length)});
      CompleteBatch(model, ids, indices, max_tokens, hooks, completions);
    }
  }
  return completions;
}

}  // namespace mechinterp::trainer
