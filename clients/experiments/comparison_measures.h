#ifndef CLIENTS_EXPERIMENTS_COMPARISON_MEASURES_H_
#define CLIENTS_EXPERIMENTS_COMPARISON_MEASURES_H_

#include <cstdint>

#include "absl/types/span.h"

namespace mechinterp {

// How far two runs of one prompt are apart. Pure functions, all in float64;
// logits and activations that are not finite make results that are not.

// One position's logits [V] as log-probabilities. Refers to the logits, which
// must outlive it; at least one.
class NextTokenDistribution {
 public:
  explicit NextTokenDistribution(absl::Span<const float> logits);

  size_t size() const { return logits_.size(); }
  // Natural logarithm; `token_id` must be below size().
  double LogProbability(uint32_t token_id) const { return logits_[token_id] - peak_ - log_sum_; }
  // The likeliest token, of equally likely ones the smallest id.
  uint32_t top_token_id() const { return top_token_id_; }

 private:
  absl::Span<const float> logits_;
  uint32_t top_token_id_;
  double peak_;     // The largest logit.
  double log_sum_;  // Of exp(logit - peak_).
};

// KL(reference || other) in nats, at least 0. Both of one size.
double KlDivergence(const NextTokenDistribution& reference, const NextTokenDistribution& other);

// |other - reference| / |reference|, Euclidean norms. 0 for equal vectors, 0 / 0
// included; infinity when only the reference is 0. Both of one size.
double RelativeError(absl::Span<const float> reference, absl::Span<const float> other);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_COMPARISON_MEASURES_H_
