#include "clients/experiments/comparison_measures.h"

#include <algorithm>
#include <cmath>

namespace mechinterp {

NextTokenDistribution::NextTokenDistribution(absl::Span<const float> logits)
    : logits_(logits),
      top_token_id_(static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin())),
      peak_(logits[top_token_id_]) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - peak_);
  log_sum_ = std::log(sum);
}

double KlDivergence(const NextTokenDistribution& reference, const NextTokenDistribution& other) {
  double divergence = 0;
  for (uint32_t id = 0; id < reference.size(); ++id) {
    const double log_p = reference.LogProbability(id);
    const double log_q = other.LogProbability(id);
    const double p = std::exp(log_p);
    // p log(p / q) + q - p: what is added sums to 0, makes every term at least
    // 0, and cancels the rounding of the normalizers, which for close
    // distributions would be larger than their divergence.
    divergence += std::exp(log_q) - p;
    if (p != 0) divergence += p * (log_p - log_q);
  }
  return divergence < 0 ? 0 : divergence;  // Rounding; NaN stays.
}

double RelativeError(absl::Span<const float> reference, absl::Span<const float> other) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double difference = static_cast<double>(other[i]) - reference[i];
    error += difference * difference;
    norm += static_cast<double>(reference[i]) * reference[i];
  }
  return error == 0 ? 0 : std::sqrt(error / norm);
}

}  // namespace mechinterp
