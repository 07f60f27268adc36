#include "services/model/engine/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace mechinterp::engine {
namespace {

double LogSumExpOf(absl::Span<const double> values, const std::vector<TokenId>& ids) {
  std::vector<double> selected;
  for (TokenId id : ids) selected.push_back(values[id]);
  return LogSumExp(selected);
}

// Of the tokens that are not among `ids`. Summed directly: 1 - p loses everything
// when p is nearly 1.
double LogSumExpOfOthers(absl::Span<const double> values, const std::vector<TokenId>& ids) {
  std::vector<double> others(values.begin(), values.end());
  for (TokenId id : ids) others[id] = -std::numeric_limits<double>::infinity();
  return LogSumExp(others);
}

std::vector<TokenProbability> TopTokens(absl::Span<const float> logits,
                                        absl::Span<const double> log_probabilities, int count) {
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const size_t kept = std::min<size_t>(count, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + kept, ids.end(), [&](TokenId a, TokenId b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  std::vector<TokenProbability> top;
  for (size_t i = 0; i < kept; ++i) {
    top.push_back({ids[i], std::exp(log_probabilities[ids[i]]), logits[ids[i]]});
  }
  return top;
}

}  // namespace

double LogSumExp(absl::Span<const double> values) {
  if (values.empty()) return -std::numeric_limits<double>::infinity();
  const double largest = *std::max_element(values.begin(), values.end());
  if (std::isinf(largest)) return largest;
  double sum = 0;
  for (double value : values) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

std::vector<double> LogSoftmax(absl::Span<const float> logits) {
  std::vector<double> result(logits.begin(), logits.end());
  const double total = LogSumExp(result);
  for (double& value : result) value -= total;
  return result;
}

RunMetrics MeasureLogits(absl::Span<const float> logits, absl::Span<const float> clean,
                         const MetricOptions& options) {
  RunMetrics metrics;
  const std::vector<double> ours = LogSoftmax(logits), theirs = LogSoftmax(clean);
  if (!options.refusal_token_ids.empty()) {
    const double refusal = LogSumExpOf(ours, options.refusal_token_ids);
    metrics.refusal_log_odds = refusal - LogSumExpOfOthers(ours, options.refusal_token_ids);
    if (!options.compliance_token_ids.empty()) {
      metrics.logit_difference = refusal - LogSumExpOf(ours, options.compliance_token_ids);
    }
  }
  double divergence = 0;
  for (size_t i = 0; i < ours.size(); ++i) divergence += std::exp(theirs[i]) * (theirs[i] - ours[i]);
  metrics.kl_from_clean = divergence;
  if (options.top_token_count > 0) metrics.top_tokens = TopTokens(logits, ours, options.top_token_count);
  return metrics;
}

std::optional<double> Effect(const RunMetrics& patched, const RunMetrics& clean, const RunMetrics& source) {
  if (!patched.logit_difference || !clean.logit_difference || !source.logit_difference) return std::nullopt;
  const double range = *source.logit_difference - *clean.logit_difference;
  if (std::abs(range) < 1e-6) return std::nullopt;
  return (*patched.logit_difference - *clean.logit_difference) / range;
}

}  // namespace mechinterp::engine
