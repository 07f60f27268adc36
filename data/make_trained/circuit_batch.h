#ifndef DATA_MAKE_TRAINED_CIRCUIT_BATCH_H_
#define DATA_MAKE_TRAINED_CIRCUIT_BATCH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/make_trained/patched_forward.h"
#include "data/make_trained/task.h"

namespace mechinterp::make_trained {

// N pairs as 2 N rows: their first prompts, then their second ones in the same order, so that row
// (i + N) mod 2 N is the source of row i. Shorter rows are padded at the end, which causal
// attention does not see.
struct PairRows {
  at::Tensor ids;      // [2N, T] prompts
  at::Tensor last;     // [2N] the last position of each
  at::Tensor answers;  // [2N] which answer the circuit gives
  std::vector<Value> facts;

  int64_t pairs() const { return ids.size(0) / 2; }
  size_t SourceOf(size_t row) const { return (row + facts.size() / 2) % facts.size(); }
};

PairRows RowsOf(const std::vector<ExamplePair>& pairs, const EdgeSpace& space, const Circuit& circuit);

// The same rows with their answers behind the prompts, to be learned.
struct TaughtRows {
  at::Tensor ids;        // [2N, T']
  at::Tensor positions;  // [M] places in ids, flattened, whose next token is learned
  at::Tensor targets;    // [M]
};

TaughtRows TaughtRowsOf(const std::vector<ExamplePair>& pairs);

// Masks of all rows as a tensor [rows, S, R].
at::Tensor MaskTensor(const EdgeSpace& space, const std::vector<EdgeMask>& masks);

// What each sender wrote, for each row in its source's run: the rows' two halves exchanged.
std::vector<at::Tensor> SourcesOf(const std::vector<at::Tensor>& senders, int64_t length);

// [B, D] of [B, T, D]: at each row's own position.
at::Tensor AtPositions(const at::Tensor& hidden, const at::Tensor& positions);

// Logits of the answers, [B, A]: of each the logsumexp over the tokens by which it may begin.
at::Tensor AnswerLogits(const at::Tensor& logits, const std::vector<at::Tensor>& answer_tokens);
std::vector<at::Tensor> AnswerTokens(const Task& task);

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_CIRCUIT_BATCH_H_
