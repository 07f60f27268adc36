#include "services/engine/operations/sampler.h"

#include <algorithm>
#include <cmath>

#include "services/engine/base/random.h"
#include "services/engine/kernels/logit_reductions.h"
#include "services/engine/operations/largest.h"

namespace mechinterp::engine {

// The lower id among equals.
bool Sampler::IsLikelier(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

TokenId Sampler::Choose(absl::Span<const float> logits, int step) {
  const auto greedy = static_cast<TokenId>(kernels::ArgMax(logits.data(), logits.size()));
  if (options_.temperature == 0) return greedy;

  const double largest = logits[greedy];
  const double draw = RandomUniform(options_.seed, /*stream=*/1, static_cast<uint64_t>(step));
  const bool has_top_k = options_.top_k > 0 && static_cast<size_t>(options_.top_k) < logits.size();
  if (!has_top_k && options_.top_p >= 1) return ChooseFromAll(logits, greedy, draw);
  if (has_top_k) {
    FindTopK(logits, largest);
  } else {
    FindTopP(logits, largest);
  }
  return candidates_.empty() ? greedy : ChooseFromCandidates(draw);
}

// Finds the block that the draw falls into, then the token in it.
TokenId Sampler::ChooseFromAll(absl::Span<const float> logits, TokenId greedy, double draw) {
  constexpr int64_t kBlock = 256;
  const auto size = static_cast<int64_t>(logits.size());
  weights_.resize(size);
  block_weights_.clear();
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    block_weights_.push_back(kernels::ExpWeights(logits.data() + begin, std::min(kBlock, size - begin),
                                                 logits[greedy], options_.temperature,
                                                 weights_.data() + begin));
    total += block_weights_.back();
  }
  double left = draw * total;
  size_t block = 0;
  while (block < block_weights_.size() && left >= block_weights_[block]) left -= block_weights_[block++];
  const int64_t begin = static_cast<int64_t>(block) * kBlock;
  for (int64_t i = begin; i < std::min(size, begin + kBlock); ++i) {
    if ((left -= weights_[i]) < 0) return static_cast<TokenId>(i);
  }
  return LastBefore(std::min(size, begin + kBlock), greedy);
}

// Where rounding left a little of the draw: the last token that can be chosen.
TokenId Sampler::LastBefore(int64_t end, TokenId greedy) const {
  while (end > 0) {
    if (weights_[--end] > 0) return static_cast<TokenId>(end);
  }
  return greedy;  // nothing can: infinite logits
}

TokenId Sampler::ChooseFromCandidates(double draw) {
  // The order must not depend on how the filters work.
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  double left = draw * total;
  for (const Candidate& candidate : candidates_) {
    if ((left -= candidate.weight) < 0) return candidate.id;
  }
  return candidates_.back().id;
}

void Sampler::FindTopK(absl::Span<const float> logits, double largest) {
  FindLargest(logits, options_.top_k, ids_);
  std::sort(ids_.begin(), ids_.end());
  candidates_.clear();
  double total = 0;
  for (TokenId id : ids_) {
    double weight = 0;
    total += kernels::ExpWeights(&logits[id], 1, largest, options_.temperature, &weight);
    if (weight > 0) candidates_.push_back({weight, id});
  }
  if (options_.top_p < 1) KeepTopP(options_.top_p * total);
}

void Sampler::FindTopP(absl::Span<const float> logits, double largest) {
  weights_.resize(logits.size());
  const double total =
      kernels::ExpWeights(logits.data(), logits.size(), largest, options_.temperature, weights_.data());
  // All that weigh less than this have less than 1 - top_p together, so the
  // likeliest reach top_p without them. Half of it, for rounding.
  const double negligible = 0.5 * (1 - options_.top_p) * total / static_cast<double>(logits.size());
  candidates_.clear();
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] > negligible) candidates_.push_back({weights_[i], static_cast<TokenId>(i)});
  }
  KeepTopP(options_.top_p * total);
}

// The fewest of the likeliest candidates that together have `wanted_weight`.
// Halves what is undecided again and again, so that nobody sorts it.
void Sampler::KeepTopP(double wanted_weight) {
  double kept = 0;  // of the candidates before `begin`, which are likelier than the rest
  auto begin = candidates_.begin(), end = candidates_.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, IsLikelier);
    double weight = 0;
    for (auto candidate = begin; candidate != middle; ++candidate) weight += candidate->weight;
    if (kept + weight < wanted_weight) {
      kept += weight;
      begin = middle;
    } else {
      end = middle;
    }
  }
  candidates_.erase(kept < wanted_weight ? end : begin, candidates_.end());
}

int64_t SamplerBytes(const SamplingOptions& options, int64_t vocabulary_size) {
  if (options.temperature == 0) return 0;
  // Candidates come one by one, so the room for them is up to twice as large, and while it
  // grows what it was is there too.
  const bool filters = options.top_p < 1 || options.top_k > 0;
  const int64_t candidates = filters ? 3 * static_cast<int64_t>(sizeof(Sampler::Candidate)) : 0;
  return vocabulary_size * (static_cast<int64_t>(sizeof(double)) + candidates);
}

TokenId SampleToken(absl::Span<const float> logits, const SamplingOptions& options, int step) {
  return Sampler(options).Choose(logits, step);
}

}  // namespace mechinterp::engine
