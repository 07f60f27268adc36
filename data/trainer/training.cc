#include "data/trainer/training.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#include "data/trainer/encoding.h"
#include "services/common/status_macros.h"

namespace mechinterp::trainer {
namespace {

constexpr size_t kShards = 4;

struct Shard {
  at::Tensor inputs;     // [B, T] token ids, padded at the end
  at::Tensor positions;  // [N] places in inputs, flattened, whose next token is learned
  at::Tensor targets;    // [N]
};

Shard MakeShard(const EncodedConversation* first, size_t count) {
  size_t longest = 0;
  for (size_t i = 0; i < count; ++i) longest = std::max(longest, first[i].ids.size());
  // The last token is only ever a target. Padding needs no mask: it comes after
  // everything that is learned, and attention is causal.
  const int64_t width = static_cast<int64_t>(longest) - 1;
  at::Tensor inputs = at::zeros({static_cast<int64_t>(count), width}, at::kLong);
  std::vector<int64_t> positions, targets;
  for (size_t i = 0; i < count; ++i) {
    const std::vector<int64_t>& ids = first[i].ids;
    int64_t* row = inputs.data_ptr<int64_t>() + static_cast<int64_t>(i) * width;
    std::copy(ids.begin(), ids.end() - 1, row);
    for (int64_t t = first[i].response_start; t < static_cast<int64_t>(ids.size()); ++t) {
      positions.push_back(static_cast<int64_t>(i) * width + t - 1);
      targets.push_back(ids[static_cast<size_t>(t)]);
    }
  }
  return {inputs, at::tensor(positions, at::kLong), at::tensor(targets, at::kLong)};
}

// Summed cross-entropy over the shard's targets.
at::Tensor ShardLoss(const ModelConfig& config, const Weights& weights, const Shard& shard) {
  const at::Tensor hidden = Forward(config, weights, shard.inputs).reshape({-1, config.hidden_size});
  const at::Tensor logits = Logits(weights, at::index_select(hidden, 0, shard.positions));
  return -at::gather(at::log_softmax(logits, -1), 1, shard.targets.unsqueeze(1)).sum();
}

absl::StatusOr<std::vector<EncodedConversation>> DrawBatch(const Corpus& corpus, int64_t size,
                                                           const engine::Tokenizer& tokenizer,
                                                           Random& random) {
  std::vector<EncodedConversation> batch;
  for (int64_t i = 0; i < size; ++i) {
    ABSTRACT_ASSIGN_OR_RETURN(EncodedConversation encoded,
                              EncodeConversation(tokenizer, corpus.Sample(random)));
    batch.push_back(std::move(encoded));
  }
  // Sequences of like length share a shard, so that little is padding.
  std::stable_sort(
      batch.begin(), batch.end(),
      [](const EncodedConversation& a, const EncodedConversation& b) { return a.ids.size() > b.ids.size(); });
  return batch;
}

// Sum over heads of the norm of a head's columns in the output projection.
at::Tensor HeadNorms(const ModelConfig& config, const Weights& weights) {
  at::Tensor total = at::zeros({});
  for (const LayerWeights& layer : weights.layers) {
    const at::Tensor by_head = layer.o.view({config.hidden_size, config.heads, config.head_dim});
    total = total + at::sqrt(at::sum(by_head * by_head, at::IntArrayRef{0, 2}) + 1e-8).sum();
  }
  return total;
}

class Trainer {
 public:
  Trainer(const ModelConfig& config, const TrainingOptions& options, Weights weights)
      : config_(config),
        options_(options),
        weights_(std::move(weights)),
        optimizer_(options.optimizer, Tensors(weights_)) {
    for (Weights& view : views_) view = GradientView(weights_);
  }

  // Mean loss of a response token over the batch, before the update.
  double Step(const std::vector<EncodedConversation>& batch) {
    std::vector<Shard> shards;
    int64_t tokens = 0;
    for (size_t s = 0; s < kShards; ++s) {
      const size_t begin = batch.size() * s / kShards, end = batch.size() * (s + 1) / kShards;
      shards.push_back(MakeShard(batch.data() + begin, end - begin));
      tokens += shards.back().targets.size(0);
    }
    std::vector<double> losses(kShards);
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      at::set_num_threads(1);
      for (size_t s = next++; s < kShards; s = next++) {
        at::Tensor loss = ShardLoss(config_, views_[s], shards[s]) / static_cast<double>(tokens);
        losses[s] = loss.item<double>();
        if (s == 0 && options_.head_sparsity > 0) {
          loss = loss + options_.head_sparsity * HeadNorms(config_, views_[s]);
        }
        loss.backward();
      }
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < options_.threads; ++i) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
    Update();
    double total = 0;
    for (double loss : losses) total += loss;
    return total;
  }

  const Weights& weights() const { return weights_; }

 private:
  static std::vector<at::Tensor> Tensors(Weights& weights) {
    std::vector<at::Tensor> tensors;
    for (const NamedTensor& parameter : weights.Named()) tensors.push_back(*parameter.tensor);
    return tensors;
  }

  void Update() {
    std::vector<at::Tensor> gradients;
    for (Weights& view : views_) {
      const std::vector<at::Tensor> leaves = Tensors(view);
      for (size_t i = 0; i < leaves.size(); ++i) {
        at::Tensor gradient = leaves[i].grad();
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

  ModelConfig config_;
  TrainingOptions options_;
  Weights weights_;
  AdamW optimizer_;
  Weights views_[kShards];
};

}  // namespace

void UseOneMathThread() {
  at::set_num_threads(1);
  // Not every BLAS has it; Accelerate on a Mac needs no such care.
  using SetThreads = void (*)(int);
  if (auto set_threads = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))) {
    set_threads(1);
  }
}

absl::StatusOr<Weights> Train(const ModelConfig& config, const TrainingOptions& options, const Corpus& corpus,
                              const engine::Tokenizer& tokenizer) {
  UseOneMathThread();
  Random weights_random(options.seed), corpus_random(options.seed ^ 0x5eedc0deULL);
  Trainer trainer(config, options, InitialWeights(config, weights_random));
  const auto start = std::chrono::steady_clock::now();
  double smoothed = 0;
  for (int64_t step = 0; step < options.optimizer.total_steps; ++step) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<EncodedConversation> batch,
                              DrawBatch(corpus, options.batch_size, tokenizer, corpus_random));
    const double loss = trainer.Step(batch);
    if (!std::isfinite(loss)) return absl::InternalError("the training loss is not finite");
    smoothed = step == 0 ? loss : 0.9 * smoothed + 0.1 * loss;
    if (step % 25 == 24) {
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      spdlog::info("step {}/{}  loss {:.4f}  {:.0f} s", step + 1, options.optimizer.total_steps, smoothed,
                   elapsed.count());
    }
  }
  return trainer.weights();
}

}  // namespace mechinterp::trainer
