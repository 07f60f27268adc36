#include "data/make_trained/circuit_training.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

#include "data/make_trained/circuit_batch.h"
#include "data/make_trained/edge_draws.h"
#include "data/trainer/training.h"

namespace mechinterp::make_trained {
namespace {

using trainer::ModelConfig;
using trainer::Weights;

// A batch is always cut into as many parts, whose gradients are added in order.
constexpr size_t kShards = 2;
// Of the squared distance of logits, beside the cross-entropy.
constexpr double kDistanceWeight = 0.05;
// The strict loss comes in over this share of the steps: first the circuit forms.
constexpr double kStrictRamp = 0.3;
// Over the same steps heads are shown where to look, if that is a fixed distance back.
constexpr double kGuidance = 1;
// Senders of no variable write so much more softly at first, so that the circuit's have a start.
constexpr double kFirstOutputOfOthers = 0.1;
// The embedding at first, against the trainer's: as large as what heads write.
constexpr double kFirstEmbedding = 4;
// Of each token's embedding at first the size of what all have in common, by which a head can
// attend wherever it is, against 1 for what is its own.
constexpr double kFirstCommonPart = 1;

// What one thread works on: pairs, and for each row what is patched.
struct Shard {
  PairRows rows;
  TaughtRows taught;
  at::Tensor mask;     // [2N, S, R]
  at::Tensor answers;  // [2N] the circuit's, with these edges patched
  at::Tensor strict;   // [2N] fp32: 1 where no edge of the circuit is patched
};

Shard MakeShard(const std::vector<ExamplePair>& pairs, const EdgeSpace& space, const EdgeDraws& draws,
                const Circuit& circuit, Random& random) {
  Shard shard{RowsOf(pairs, space, circuit), TaughtRowsOf(pairs), {}, {}, {}};
  std::vector<EdgeMask> masks;
  std::vector<int64_t> answers;
  std::vector<float> strict;
  for (size_t row = 0; row < shard.rows.facts.size(); ++row) {
    const bool is_strict = random.Chance(0.5);
    EdgeMask mask = is_strict ? draws.OfRest(random) : draws.OfCircuit(random);
    if (!is_strict && random.Chance(0.5)) mask = Union(mask, draws.OfRest(random));
    answers.push_back(
        circuit.Answer(space, shard.rows.facts[row], shard.rows.facts[shard.rows.SourceOf(row)], mask));
    strict.push_back(is_strict ? 1.0f : 0.0f);
    masks.push_back(std::move(mask));
  }
  shard.mask = MaskTensor(space, masks);
  shard.answers = at::tensor(answers, at::kLong);
  shard.strict = at::tensor(strict, at::kFloat);
  return shard;
}

class Objective {
 public:
  Objective(const ModelConfig& config, const Task& task)
      : config_(config), task_(task), tokens_(AnswerTokens(task)) {
    std::vector<int64_t> firsts;
    for (const std::vector<TokenId>& answer : task.answers) firsts.push_back(answer.front());
    firsts_ = at::tensor(firsts, at::kLong);
  }

  // Sums over the shard: behaviour, interchange, strict, guidance.
  std::array<at::Tensor, 4> Losses(const Weights& weights, const Shard& shard) const {
    const EdgeRun plain = RunEdges(config_, weights, shard.taught.ids, nullptr);
    const at::Tensor behaviour =
        TaughtLoss(weights, plain.hidden, shard.taught) +
        Distance(LogitsAt(weights, plain.hidden, shard.rows.last), shard.rows.answers).sum();
    const EdgePatch patch{shard.mask, SourcesOf(plain.senders, shard.rows.ids.size(1))};
    const EdgeRun patched = RunEdges(config_, weights, shard.rows.ids, &patch);
    const at::Tensor logits = LogitsAt(weights, patched.hidden, shard.rows.last);
    const at::Tensor targets = at::index_select(firsts_, 0, shard.answers);
    const at::Tensor each = CrossEntropy(logits, targets) + Distance(logits, shard.answers);
    return {behaviour, (each * (1 - shard.strict)).sum(), (each * shard.strict).sum(),
            Guidance(plain) * static_cast<double>(shard.taught.ids.size(0))};
  }

 private:
  static at::Tensor LogitsAt(const Weights& weights, const at::Tensor& hidden, const at::Tensor& positions) {
    return trainer::Logits(weights, AtPositions(hidden, positions));
  }

  static at::Tensor CrossEntropy(const at::Tensor& logits, const at::Tensor& targets) {
    return -at::gather(at::log_softmax(logits, -1), 1, targets.unsqueeze(1)).squeeze(1);
  }

  // Over all of a row's answer, as a mean.
  at::Tensor TaughtLoss(const Weights& weights, const at::Tensor& hidden, const TaughtRows& taught) const {
    const at::Tensor read = at::index_select(hidden.reshape({-1, config_.hidden_size}), 0, taught.positions);
    const double tokens_per_row = static_cast<double>(taught.targets.size(0)) / double(taught.ids.size(0));
    return CrossEntropy(trainer::Logits(weights, read), taught.targets).sum() / tokens_per_row;
  }

  // Of the answers' logits, about their mean, from the right one's standing kAnswerMargin above the
  // others. [B]
  at::Tensor Distance(const at::Tensor& logits, const at::Tensor& answers) const {
    const at::Tensor given = AnswerLogits(logits, tokens_);  // [B, A]
    const at::Tensor wanted = at::one_hot(answers, given.size(1)) * kAnswerMargin;
    const at::Tensor off =
        (given - at::mean(given, -1, true)) - (wanted - kAnswerMargin / double(given.size(1)));
    return kDistanceWeight * (off * off).sum(-1);
  }

  // Of heads that look a fixed distance back: the negative logarithm of the share that they do.
  at::Tensor Guidance(const EdgeRun& run) const {
    const EdgeSpace space = SpaceOf(config_);
    at::Tensor total = at::zeros({});
    for (const Variable& variable : task_.circuit.variables) {
      if (variable.offset == 0) continue;
      const int layer = (variable.sender - 1) / (space.heads() + 1);
      const at::Tensor pattern =
          run.patterns[static_cast<size_t>(layer)].select(1, variable.sender - space.Head(layer, 0));
      total = total - at::log(at::diagonal(pattern, -variable.offset, 1, 2) + 1e-6).mean();
    }
    return total;
  }

  const ModelConfig& config_;
  const Task& task_;
  std::vector<at::Tensor> tokens_;  // by answer
  at::Tensor firsts_;               // [A] the token that is taught
};

std::vector<at::Tensor> Tensors(Weights& weights) {
  std::vector<at::Tensor> tensors;
  for (const trainer::NamedTensor& parameter : weights.Named()) tensors.push_back(*parameter.tensor);
  return tensors;
}

// The trainer's first weights, with a start for the circuit.
Weights FirstWeights(const ModelConfig& config, const EdgeSpace& space, const EdgeDraws& draws,
                     uint64_t seed) {
  Random random(seed);
  Weights weights = trainer::InitialWeights(config, random);
  weights.embedding.mul_(kFirstEmbedding);
  std::vector<float> common;
  const double size = kFirstCommonPart * at::std(weights.embedding).item<double>();
  for (int64_t i = 0; i < config.hidden_size; ++i)
    common.push_back(static_cast<float>(size * random.Normal()));
  weights.embedding.add_(at::tensor(common, at::kFloat));
  for (const int sender : draws.other_senders()) {
    for (int layer = 0; layer < config.layers; ++layer) {
      trainer::LayerWeights& block = weights.layers[static_cast<size_t>(layer)];
      if (sender == space.Mlp(layer)) block.down.mul_(kFirstOutputOfOthers);
      const int head = sender - space.Head(layer, 0);
      if (head < 0 || head >= config.heads) continue;
      block.o.narrow(1, head * config.head_dim, config.head_dim).mul_(kFirstOutputOfOthers);
    }
  }
  return weights;
}

}  // namespace

class CircuitTrainer::Impl {
 public:
  Impl(const ModelConfig& config, const CircuitTrainingOptions& options, const Task& task)
      : config_(config),
        options_(options),
        task_(task),
        space_(SpaceOf(config)),
        sampler_(task),
        draws_(space_, task.circuit),
        objective_(config_, task),
        random_(options.seed ^ 0x5eedc0deULL),
        weights_(FirstWeights(config, space_, draws_, options.seed)),
        optimizer_(options.optimizer, Tensors(weights_)) {
    for (Weights& view : views_) view = trainer::GradientView(weights_);
  }

  CircuitLosses Step() {
    std::vector<Shard> shards;
    for (size_t s = 0; s < kShards; ++s) {
      std::vector<ExamplePair> pairs;
      for (int64_t i = 0; i < options_.pairs_per_step / int64_t{kShards}; ++i) {
        pairs.push_back(sampler_.ToTrainOn(random_));
      }
      shards.push_back(MakeShard(pairs, space_, draws_, task_.circuit, random_));
    }
    const std::array<double, 4> counts = Counts(shards);
    const double ramp = kStrictRamp * static_cast<double>(options_.optimizer.total_steps);
    const double ramped = std::min(1.0, static_cast<double>(optimizer_.steps()) / ramp);
    const std::array<double, 4> weights = {1, 1, ramped, kGuidance * (1 - ramped)};
    std::vector<std::array<double, 4>> losses(kShards);
    RunShards([&](size_t s) {
      at::Tensor total = at::zeros({});
      const std::array<at::Tensor, 4> sums = objective_.Losses(views_[s], shards[s]);
      for (size_t i = 0; i < sums.size(); ++i) {
        losses[s][i] = sums[i].item<double>() / counts[i];
        total = total + sums[i] * (weights[i] / counts[i]);
      }
      total.backward();
    });
    Update();
    CircuitLosses mean;
    for (const auto& part : losses) {
      mean.behaviour += part[0], mean.interchange += part[1], mean.strict += part[2];
    }
    return mean;
  }

  const Weights& weights() const { return weights_; }

 private:
  // Rows of each loss over the whole batch.
  static std::array<double, 4> Counts(const std::vector<Shard>& shards) {
    double rows = 0, strict = 0;
    for (const Shard& shard : shards) {
      rows += static_cast<double>(shard.rows.facts.size());
      strict += shard.strict.sum().item<double>();
    }
    return {rows, std::max(1.0, rows - strict), std::max(1.0, strict), rows};
  }

  template <typename Work>
  void RunShards(const Work& work) {
    std::atomic<size_t> next = 0;
    const auto take = [&] {
      at::set_num_threads(1);
      for (size_t s = next++; s < kShards; s = next++) work(s);
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < options_.threads; ++i) threads.emplace_back(take);
    take();
    for (std::thread& thread : threads) thread.join();
  }

  void Update() {
    std::vector<at::Tensor> gradients;
    for (Weights& view : views_) {
      const std::vector<at::Tensor> leaves = Tensors(view);
      for (size_t i = 0; i < leaves.size(); ++i) {
        const at::Tensor gradient = leaves[i].grad();
        leaves[i].mutable_grad() = at::Tensor();
        if (gradients.size() <= i) {
          gradients.push_back(gradient);
        } else {
          gradients[i] = gradients[i] + gradient;
        }
      }
    }
    optimizer_.Step(gradients);
  }

  const ModelConfig config_;
  const CircuitTrainingOptions options_;
  const Task& task_;
  const EdgeSpace space_;
  const Sampler sampler_;
  const EdgeDraws draws_;
  const Objective objective_;
  Random random_;
  Weights weights_;
  trainer::AdamW optimizer_;
  Weights views_[kShards];
};

CircuitTrainer::CircuitTrainer(const ModelConfig& config, const CircuitTrainingOptions& options,
                               const Task& task) {
  trainer::UseOneMathThread();
  impl_ = std::make_unique<Impl>(config, options, task);
}

CircuitTrainer::~CircuitTrainer() = default;

CircuitLosses CircuitTrainer::Step() { return impl_->Step(); }

const Weights& CircuitTrainer::weights() const { return impl_->weights(); }

absl::StatusOr<Weights> TrainCircuit(
    const ModelConfig& config, const CircuitTrainingOptions& options, const Task& task,
    const std::function<void(int64_t step, const CircuitLosses& losses)>& report) {
  CircuitTrainer trainer(config, options, task);
  for (int64_t step = 0; step < options.optimizer.total_steps; ++step) {
    const CircuitLosses losses = trainer.Step();
    if (!std::isfinite(losses.behaviour + losses.interchange + losses.strict)) {
      return absl::InternalError("the training loss is not finite");
    }
    report(step, losses);
  }
  return trainer.weights();
}

}  // namespace mechinterp::make_trained
