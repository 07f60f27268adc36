#include "data/make_trained/circuit_batch.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace mechinterp::make_trained {
namespace {

// Bases, then sources.
std::vector<const Example*> ExamplesOf(const std::vector<ExamplePair>& pairs) {
  std::vector<const Example*> examples;
  for (const ExamplePair& pair : pairs) examples.push_back(&pair.base);
  for (const ExamplePair& pair : pairs) examples.push_back(&pair.source);
  return examples;
}

at::Tensor Padded(const std::vector<std::vector<TokenId>>& rows) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  at::Tensor ids = at::zeros({static_cast<int64_t>(rows.size()), static_cast<int64_t>(longest)}, at::kLong);
  int64_t* at = ids.data_ptr<int64_t>();
  for (size_t i = 0; i < rows.size(); ++i) std::copy(rows[i].begin(), rows[i].end(), at + i * longest);
  return ids;
}

}  // namespace

PairRows RowsOf(const std::vector<ExamplePair>& pairs, const EdgeSpace& space, const Circuit& circuit) {
  PairRows rows;
  std::vector<std::vector<TokenId>> prompts;
  std::vector<int64_t> last, answers;
  for (const Example* example : ExamplesOf(pairs)) {
    prompts.push_back(example->prompt);
    last.push_back(static_cast<int64_t>(example->prompt.size()) - 1);
    answers.push_back(circuit.Answer(space, example->facts));
    rows.facts.push_back(example->facts);
  }
  rows.ids = Padded(prompts);
  rows.last = at::tensor(last, at::kLong);
  rows.answers = at::tensor(answers, at::kLong);
  return rows;
}

TaughtRows TaughtRowsOf(const std::vector<ExamplePair>& pairs) {
  std::vector<std::vector<TokenId>> inputs;
  for (const Example* example : ExamplesOf(pairs)) {
    inputs.push_back(example->prompt);
    inputs.back().insert(inputs.back().end(), example->answer.begin(), example->answer.end() - 1);
  }
  TaughtRows rows{Padded(inputs), {}, {}};
  std::vector<int64_t> positions, targets;
  const std::vector<const Example*> examples = ExamplesOf(pairs);
  for (size_t i = 0; i < examples.size(); ++i) {
    for (size_t j = 0; j < examples[i]->answer.size(); ++j) {
      const size_t place = examples[i]->prompt.size() - 1 + j;
      positions.push_back(static_cast<int64_t>(i) * rows.ids.size(1) + static_cast<int64_t>(place));
      targets.push_back(examples[i]->answer[j]);
    }
  }
  rows.positions = at::tensor(positions, at::kLong);
  rows.targets = at::tensor(targets, at::kLong);
  return rows;
}

at::Tensor MaskTensor(const EdgeSpace& space, const std::vector<EdgeMask>& masks) {
  at::Tensor tensor = at::empty(
      {static_cast<int64_t>(masks.size()), space.sender_count(), space.receiver_count()}, at::kFloat);
  float* at = tensor.data_ptr<float>();
  for (const EdgeMask& mask : masks) at = std::copy(mask.begin(), mask.end(), at);
  return tensor;
}

std::vector<at::Tensor> SourcesOf(const std::vector<at::Tensor>& senders, int64_t length) {
  std::vector<at::Tensor> sources;
  for (const at::Tensor& sender : senders) {
    sources.push_back(at::roll(sender.narrow(1, 0, length), sender.size(0) / 2, 0));
  }
  return sources;
}

at::Tensor AtPositions(const at::Tensor& hidden, const at::Tensor& positions) {
  const at::Tensor index = positions.view({-1, 1, 1}).expand({hidden.size(0), 1, hidden.size(2)});
  return at::gather(hidden, 1, index).squeeze(1);
}

at::Tensor AnswerLogits(const at::Tensor& logits, const std::vector<at::Tensor>& answer_tokens) {
  std::vector<at::Tensor> columns;
  for (const at::Tensor& tokens : answer_tokens) {
    columns.push_back(at::logsumexp(at::index_select(logits, 1, tokens), {1}));
  }
  return at::stack(columns, 1);
}

std::vector<at::Tensor> AnswerTokens(const Task& task) {
  std::vector<at::Tensor> tokens;
  for (const std::vector<TokenId>& answer : task.answers) {
    tokens.push_back(at::tensor(std::vector<int64_t>(answer.begin(), answer.end()), at::kLong));
  }
  return tokens;
}

}  // namespace mechinterp::make_trained
