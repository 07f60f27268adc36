#ifndef SERVICES_ENGINE_OPERATIONS_LOGIT_METRICS_H_
#define SERVICES_ENGINE_OPERATIONS_LOGIT_METRICS_H_

#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "services/engine/base/token_id.h"

namespace mechinterp::engine {

// What to measure at the last prompt position; see MetricOptions and RunMetrics
// of the API for the meanings. Natural logarithms, double precision. Token sets are
// without repetitions, and no opening begins with another of its list: see AsSets.
struct MetricOptions {
  std::vector<TokenId> refusal_token_ids;
  std::vector<TokenId> compliance_token_ids;
  std::vector<std::vector<TokenId>> refusal_openings;
  std::vector<std::vector<TokenId>> compliance_openings;
  int top_token_count = 0;

  bool has_openings() const { return !refusal_openings.empty() || !compliance_openings.empty(); }
  // In tokens; 0 without openings.
  int longest_opening() const;
};

// The same measurements, without what would be counted twice: repeated ids, and openings
// that begin with another of their list, which is then certain to have begun the
// continuation.
MetricOptions AsSets(MetricOptions options);

struct TokenProbability {
  TokenId id = 0;
  double probability = 0;
  double logit = 0;
};

struct RunMetrics {
  std::optional<double> logit_difference;
  std::optional<double> refusal_log_odds;
  std::optional<double> kl_from_clean;
  std::optional<double> refusal_opening_log_probability;
  std::optional<double> compliance_opening_log_probability;
  std::vector<TokenProbability> top_tokens;
};

// log of the sum of exponentials; -infinity for none.
double LogSumExp(absl::Span<const double> values);

// log of the sum of the exponentials of a row of logits.
double LogNormalizer(absl::Span<const float> logits);
// log p(id).
double LogProbability(absl::Span<const float> logits, TokenId id);

// The clean run's side of the comparison with many others: what does not depend
// on them, computed once. Immutable; V doubles and V floats.
class ReferenceDistribution {
 public:
  explicit ReferenceDistribution(absl::Span<const float> logits);

  // Kullback-Leibler divergence of a row, as large as this one, from it; the row's
  // LogNormalizer is given.
  double DivergenceOf(absl::Span<const float> logits, double log_normalizer) const;
  // Of a token.
  double probability(size_t id) const { return probabilities_[id]; }

 private:
  std::vector<float> logits_;
  std::vector<double> probabilities_;
  double log_normalizer_;
};

// Everything but the openings, which need runs of their own (run_metrics.h).
// `clean` is the clean run's row, for the KL divergence.
RunMetrics MeasureLogits(absl::Span<const float> logits, const ReferenceDistribution& clean,
                         const MetricOptions& options);
// The same without the KL divergence.
RunMetrics MeasureLogits(absl::Span<const float> logits, const MetricOptions& options);
// The same for a single row.
RunMetrics MeasureLogits(absl::Span<const float> logits, absl::Span<const float> clean,
                         const MetricOptions& options);

// What a ReferenceDistribution takes.
inline int64_t ReferenceBytes(int64_t vocabulary_size) {
  return vocabulary_size * static_cast<int64_t>(sizeof(float) + sizeof(double));
}

// (patched - clean) / (source - clean) of the logit difference. Nothing when
// one is missing or source and clean differ by less than 1e-6.
std::optional<double> Effect(const RunMetrics& patched, const RunMetrics& clean, const RunMetrics& source);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_LOGIT_METRICS_H_
