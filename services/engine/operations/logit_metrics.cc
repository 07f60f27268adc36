#include "services/engine/operations/logit_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "services/engine/kernels/logit_reductions.h"
#include "services/engine/operations/largest.h"

namespace mechinterp::engine {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

double LogSumExpOf(absl::Span<const float> logits, const std::vector<TokenId>& ids) {
  std::vector<double> selected;
  for (TokenId id : ids) selected.push_back(logits[id]);
  return LogSumExp(selected);
}

// Of the tokens that are not among `ids`. Summed directly: 1 - p loses everything
// when p is nearly 1.
double LogSumExpOfOthers(absl::Span<const float> logits, std::vector<TokenId> ids) {
  std::sort(ids.begin(), ids.end());
  std::vector<double> parts;  // between one of `ids` and the next
  size_t begin = 0;
  auto add_until = [&](size_t end) {
    if (begin < end) parts.push_back(LogNormalizer(logits.subspan(begin, end - begin)));
  };
  for (TokenId id : ids) {
    add_until(id);
    begin = static_cast<size_t>(id) + 1;
  }
  add_until(logits.size());
  return LogSumExp(parts);
}

std::vector<TokenProbability> TopTokens(absl::Span<const float> logits, double log_normalizer, int count) {
  std::vector<TokenId> ids;
  FindLargest(logits, count, ids);
  std::sort(ids.begin(), ids.end(),
            [&](TokenId a, TokenId b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  std::vector<TokenProbability> top;
  for (TokenId id : ids) top.push_back({id, std::exp(logits[id] - log_normalizer), logits[id]});
  return top;
}

RunMetrics Measure(absl::Span<const float> logits, double log_normalizer, const MetricOptions& options) {
  RunMetrics metrics;
  if (!options.refusal_token_ids.empty()) {
    const double refusal = LogSumExpOf(logits, options.refusal_token_ids);
    metrics.refusal_log_odds = refusal - LogSumExpOfOthers(logits, options.refusal_token_ids);
    if (!options.compliance_token_ids.empty()) {
      metrics.logit_difference = refusal - LogSumExpOf(logits, options.compliance_token_ids);
    }
  }
  if (options.top_token_count > 0) {
    metrics.top_tokens = TopTokens(logits, log_normalizer, options.top_token_count);
  }
  return metrics;
}

// In lexicographic order the ones that begin with an opening follow it.
void DropExtensions(std::vector<std::vector<TokenId>>& openings) {
  std::sort(openings.begin(), openings.end());
  std::vector<std::vector<TokenId>> kept;
  for (std::vector<TokenId>& opening : openings) {
    const bool extends = !kept.empty() && kept.back().size() <= opening.size() &&
                         std::equal(kept.back().begin(), kept.back().end(), opening.begin());
    if (!extends) kept.push_back(std::move(opening));
  }
  openings = std::move(kept);
}

}  // namespace

MetricOptions AsSets(MetricOptions options) {
  for (std::vector<TokenId>* ids : {&options.refusal_token_ids, &options.compliance_token_ids}) {
    std::sort(ids->begin(), ids->end());
    ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
  }
  DropExtensions(options.refusal_openings);
  DropExtensions(options.compliance_openings);
  return options;
}

int MetricOptions::longest_opening() const {
  size_t longest = 0;
  for (const auto* openings : {&refusal_openings, &compliance_openings}) {
    for (const auto& opening : *openings) longest = std::max(longest, opening.size());
  }
  return static_cast<int>(longest);
}

double LogSumExp(absl::Span<const double> values) {
  if (values.empty()) return kMinusInfinity;
  const double largest = *std::max_element(values.begin(), values.end());
  if (std::isinf(largest)) return largest;
  double sum = 0;
  for (double value : values) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

double LogNormalizer(absl::Span<const float> logits) {
  const double largest = kernels::MaxValue(logits.data(), logits.size());
  if (std::isinf(largest)) return largest;
  return largest + std::log(kernels::SumExp(logits.data(), logits.size(), largest));
}

double LogProbability(absl::Span<const float> logits, TokenId id) {
  return logits[id] - LogNormalizer(logits);
}

ReferenceDistribution::ReferenceDistribution(absl::Span<const float> logits)
    : logits_(logits.begin(), logits.end()),
      probabilities_(logits.size()),
      log_normalizer_(LogNormalizer(logits)) {
  kernels::ExpWeights(logits.data(), logits.size(), log_normalizer_, /*temperature=*/1,
                      probabilities_.data());
}

// sum of p (log p - log q), where log p - log q is the difference of the logits
// but for the normalizers.
double ReferenceDistribution::DivergenceOf(absl::Span<const float> logits, double log_normalizer) const {
  return kernels::WeightedDifference(probabilities_.data(), logits_.data(), logits.data(), logits.size()) +
         (log_normalizer - log_normalizer_);
}

RunMetrics MeasureLogits(absl::Span<const float> logits, const ReferenceDistribution& clean,
                         const MetricOptions& options) {
  const double log_normalizer = LogNormalizer(logits);
  RunMetrics metrics = Measure(logits, log_normalizer, options);
  metrics.kl_from_clean = clean.DivergenceOf(logits, log_normalizer);
  return metrics;
}

RunMetrics MeasureLogits(absl::Span<const float> logits, const MetricOptions& options) {
  return Measure(logits, LogNormalizer(logits), options);
}

RunMetrics MeasureLogits(absl::Span<const float> logits, absl::Span<const float> clean,
                         const MetricOptions& options) {
  return MeasureLogits(logits, ReferenceDistribution(clean), options);
}

std::optional<double> Effect(const RunMetrics& patched, const RunMetrics& clean, const RunMetrics& source) {
  if (!patched.logit_difference || !clean.logit_difference || !source.logit_difference) return std::nullopt;
  const double range = *source.logit_difference - *clean.logit_difference;
  if (std::abs(range) < 1e-6) return std::nullopt;
  return (*patched.logit_difference - *clean.logit_difference) / range;
}

}  // namespace mechinterp::engine
