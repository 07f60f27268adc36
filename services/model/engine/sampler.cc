#include "services/model/engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "services/model/engine/random.h"

namespace mechinterp::engine {
namespace {

struct Candidate {
  double weight;  // probability, not normalized
  TokenId id;
};

// Likelier first; the lower id among equals.
bool Before(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

TokenId Greedy(absl::Span<const float> logits) {
  TokenId best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best] || std::isnan(logits[best])) best = static_cast<TokenId>(i);
  }
  return best;
}

// The likeliest candidates that together have at least `top_p` of the weight.
// Takes them off a heap one by one, so that nobody sorts the whole vocabulary.
void KeepTopP(std::vector<Candidate>& candidates, double top_p) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  const auto later = [](const Candidate& a, const Candidate& b) { return Before(b, a); };
  std::make_heap(candidates.begin(), candidates.end(), later);
  double kept = 0;
  auto end = candidates.end();
  while (end != candidates.begin() && kept < top_p * total) {
    std::pop_heap(candidates.begin(), end, later);
    kept += (--end)->weight;
  }
  candidates.erase(candidates.begin(), end);
}

}  // namespace

TokenId SampleToken(absl::Span<const float> logits, const SamplingOptions& options, int step) {
  const TokenId greedy = Greedy(logits);
  if (options.temperature == 0) return greedy;

  const double largest = logits[greedy];
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((logits[i] - largest) / options.temperature);
    if (weight > 0) candidates.push_back({weight, static_cast<TokenId>(i)});
  }
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + options.top_k, candidates.end(), Before);
    candidates.resize(options.top_k);
  }
  if (options.top_p < 1) KeepTopP(candidates, options.top_p);

  // The order must not depend on how the filters work.
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  double left = RandomUniform(options.seed, /*stream=*/1, static_cast<uint64_t>(step)) * total;
  for (const Candidate& candidate : candidates) {
    if ((left -= candidate.weight) < 0) return candidate.id;
  }
  return candidates.empty() ? greedy : candidates.back().id;
}

}  // namespace mechinterp::engine
