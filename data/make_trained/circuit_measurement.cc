#include "data/make_trained/circuit_measurement.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <functional>

namespace mechinterp::make_trained {
namespace {

EdgeMask One(const EdgeSpace& space, Edge edge) {
  EdgeMask mask = space.NoEdges();
  mask[space.At(edge)] = 1;
  return mask;
}

// How often a model answers as it should.
struct Tally {
  double right = 0, all = 0;
  void Add(bool is_right) {
    right += is_right ? 1 : 0;
    all += 1;
  }
  double share() const { return all == 0 ? 1 : right / all; }
};

// `moved` counts what the circuit says to change the answer; may be null.
void Count(const PatchingRuns& runs, const EdgeMask& mask, Tally& tally, Tally* moved = nullptr) {
  const at::Tensor given = runs.Patched(mask).given;
  const std::vector<int> expected = runs.Expected(mask);
  for (size_t row = 0; row < expected.size(); ++row) {
    const bool is_right = given.data_ptr<int64_t>()[row] == expected[row];
    tally.Add(is_right);
    const int64_t unpatched = runs.rows().answers.data_ptr<int64_t>()[row];
    if (moved != nullptr && unpatched != expected[row]) moved->Add(is_right);
  }
}

// Of effects that the circuit has at 0 or at 1.
void Compare(const PatchingRuns& runs, const EdgeMask& mask, const std::string& name, double& largest,
             std::string& worst) {
  const std::vector<double> effects = runs.Effects(mask);
  const std::vector<int> expected = runs.Expected(mask);
  const int64_t* answers = runs.rows().answers.data_ptr<int64_t>();
  for (size_t row = 0; row < effects.size(); ++row) {
    const int64_t source = answers[runs.rows().SourceOf(row)];
    if (expected[row] != answers[row] && expected[row] != source) continue;
    const double error = std::abs(effects[row] - (expected[row] == source ? 1 : 0));
    if (error > largest) largest = error, worst = name;
  }
}

}  // namespace

PatchingRuns::PatchingRuns(const trainer::ModelConfig& config, const trainer::Weights& weights,
                           const Task& task, const std::vector<ExamplePair>& pairs)
    : config_(config),
      weights_(weights),
      task_(task),
      space_(SpaceOf(config)),
      rows_(RowsOf(pairs, space_, task.circuit)),
      tokens_(AnswerTokens(task)) {
  const c10::AutoGradMode no_gradients(false);
  const EdgeRun run = RunEdges(config_, weights_, rows_.ids, nullptr);
  sources_ = SourcesOf(run.senders, rows_.ids.size(1));
  plain_ = AnswersOf(run.hidden);
}

PatchingRuns::Answers PatchingRuns::AnswersOf(const at::Tensor& hidden) const {
  const at::Tensor logits = trainer::Logits(weights_, AtPositions(hidden, rows_.last));
  const at::Tensor likeliest = at::argmax(logits, -1);
  at::Tensor given = at::full_like(likeliest, -1);
  for (size_t answer = 0; answer < task_.answers.size(); ++answer) {
    given.masked_fill_(likeliest == int64_t{task_.answers[answer].front()}, static_cast<int64_t>(answer));
  }
  return {AnswerLogits(logits, tokens_), given};
}

PatchingRuns::Answers PatchingRuns::Patched(const EdgeMask& mask) const {
  const c10::AutoGradMode no_gradients(false);
  const EdgePatch patch{MaskTensor(space_, std::vector<EdgeMask>(rows_.facts.size(), mask)), sources_};
  return AnswersOf(RunEdges(config_, weights_, rows_.ids, &patch).hidden);
}

std::vector<int> PatchingRuns::Expected(const EdgeMask& mask) const {
  std::vector<int> answers;
  for (size_t row = 0; row < rows_.facts.size(); ++row) {
    answers.push_back(task_.circuit.Answer(space_, rows_.facts[row], rows_.facts[rows_.SourceOf(row)], mask));
  }
  return answers;
}

std::vector<double> PatchingRuns::Effects(const EdgeMask& mask) const {
  const at::Tensor patched = Patched(mask).logits;
  const auto difference = [&](const at::Tensor& logits, size_t read, size_t row) {
    const int64_t* answers = rows_.answers.data_ptr<int64_t>();
    const float* values = logits.data_ptr<float>() + static_cast<int64_t>(read) * logits.size(1);
    return static_cast<double>(values[answers[row]] - values[answers[rows_.SourceOf(row)]]);
  };
  std::vector<double> effects;
  for (size_t row = 0; row < rows_.facts.size(); ++row) {
    const double base = difference(plain_.logits, row, row);
    const double source = difference(plain_.logits, rows_.SourceOf(row), row);
    effects.push_back((difference(patched, row, row) - base) / (source - base));
  }
  return effects;
}

Accuracies MeasureAccuracies(const trainer::ModelConfig& config, const trainer::Weights& weights,
                             const Task& task, const std::vector<ExamplePair>& pairs) {
  const EdgeSpace space = SpaceOf(config);
  const EdgeDraws draws(space, task.circuit);
  const PatchingRuns runs(config, weights, task, pairs);
  Tally behaviour, nodes, edges, moved, other_nodes, other_edges, alone;
  Count(runs, space.NoEdges(), behaviour);
  for (const int sender : draws.circuit_senders()) {
    if (sender != EdgeSpace::kEmbed) Count(runs, draws.AllOf(sender), nodes, &moved);
  }
  for (const Edge& edge : draws.circuit_edges()) Count(runs, One(space, edge), edges);
  for (const int sender : draws.other_senders()) Count(runs, draws.AllOf(sender), other_nodes);
  EdgeMask all_others = space.NoEdges();
  for (const Edge& edge : draws.other_edges()) {
    const EdgeMask mask = One(space, edge);
    Count(runs, mask, other_edges);
    all_others = Union(all_others, mask);
  }
  Count(runs, all_others, alone);
  return {static_cast<int>(pairs.size()),
          behaviour.share(),
          nodes.share(),
          edges.share(),
          moved.share(),
          other_nodes.share(),
          other_edges.share(),
          alone.share()};
}

EffectErrors MeasureEffects(const trainer::ModelConfig& config, const trainer::Weights& weights,
                            const Task& task) {
  const EdgeSpace space = SpaceOf(config);
  const EdgeDraws draws(space, task.circuit);
  const PatchingRuns runs(config, weights, task, task.pairs);
  EffectErrors errors;
  for (const int sender : draws.circuit_senders()) {
    Compare(runs, draws.AllOf(sender), space.SenderName(sender), errors.largest_of_circuit_nodes,
            errors.worst_circuit_node);
  }
  for (const int sender : draws.other_senders()) {
    Compare(runs, draws.AllOf(sender), space.SenderName(sender), errors.largest_of_other_nodes,
            errors.worst_other_node);
  }
  for (const Edge& edge : draws.circuit_edges()) {
    Compare(runs, One(space, edge), space.EdgeName(edge), errors.largest_of_circuit_edges,
            errors.worst_circuit_edge);
  }
  for (const Edge& edge : draws.other_edges()) {
    Compare(runs, One(space, edge), space.EdgeName(edge), errors.largest_of_other_edges,
            errors.worst_other_edge);
  }
  return errors;
}

}  // namespace mechinterp::make_trained
