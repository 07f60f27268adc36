#include "services/engine/operations/metric_gradient.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace mechinterp::engine {
namespace {

using Logits = absl::Span<const float>;
using Gradient = absl::Span<float>;

// gradient[id] += sign * (probability of id within the set), for each id of it.
void AddSoftmaxOf(const std::vector<TokenId>& ids, Logits logits, double sign, Gradient gradient) {
  std::vector<double> selected;
  for (TokenId id : ids) selected.push_back(logits[id]);
  const double total = LogSumExp(selected);
  for (TokenId id : ids) gradient[id] += static_cast<float>(sign * std::exp(logits[id] - total));
}

void LogitDifferenceGradient(const MetricOptions& options, Logits logits, Gradient gradient) {
  std::fill(gradient.begin(), gradient.end(), 0.0f);
  AddSoftmaxOf(options.refusal_token_ids, logits, 1, gradient);
  AddSoftmaxOf(options.compliance_token_ids, logits, -1, gradient);
}

// log p - log(1 - p): of those in the set the softmax within it, of the others, less, that
// within theirs.
void LogOddsGradient(const MetricOptions& options, Logits logits, Gradient gradient) {
  const double odds = *MeasureLogits(logits, options).refusal_log_odds;
  const double normalizer = LogNormalizer(logits);
  // log(1 - p) = -log(1 + e^odds).
  const double others =
      normalizer - (odds > 0 ? odds + std::log1p(std::exp(-odds)) : std::log1p(std::exp(odds)));
  for (size_t i = 0; i < gradient.size(); ++i) {
    gradient[i] = static_cast<float>(-std::exp(logits[i] - others));
  }
  for (TokenId id : options.refusal_token_ids) gradient[id] = 0;
  AddSoftmaxOf(options.refusal_token_ids, logits, 1, gradient);
}

}  // namespace

DifferentiableMetric MakeMetric(MetricKind kind, const MetricOptions& options,
                                std::shared_ptr<const ReferenceDistribution> clean) {
  switch (kind) {
    case MetricKind::kLogitDifference:
      return {[options](Logits logits) { return *MeasureLogits(logits, options).logit_difference; },
              [options](Logits logits, Gradient gradient) {
                LogitDifferenceGradient(options, logits, gradient);
              }};
    case MetricKind::kRefusalLogOdds:
      return {[options](Logits logits) { return *MeasureLogits(logits, options).refusal_log_odds; },
              [options](Logits logits, Gradient gradient) { LogOddsGradient(options, logits, gradient); }};
    case MetricKind::kKlFromClean:
      break;
    case MetricKind::kOpenings:
      return {};
  }
  // d KL(p || q) / d logits of q = q - p.
  return {[clean](Logits logits) { return clean->DivergenceOf(logits, LogNormalizer(logits)); },
          [clean](Logits logits, Gradient gradient) {
            const double normalizer = LogNormalizer(logits);
            for (size_t i = 0; i < gradient.size(); ++i) {
              gradient[i] = static_cast<float>(std::exp(logits[i] - normalizer) - clean->probability(i));
            }
          }};
}

double OpeningsMetric(const RunMetrics& metrics) {
  return *metrics.refusal_opening_log_probability - metrics.compliance_opening_log_probability.value_or(0);
}

// d log sum exp(s) = sum exp(s - total) ds, where s is a sum of log-softmaxes of its rows.
void OpeningGradient(const std::vector<TokenId>& opening, double sign, double log_total, Logits logits,
                     Gradient gradient) {
  const size_t width = logits.size() / opening.size();
  double log_probability = 0;
  for (size_t row = 0; row < opening.size(); ++row) {
    log_probability += LogProbability(logits.subspan(row * width, width), opening[row]);
  }
  const double weight = sign * std::exp(log_probability - log_total);
  for (size_t row = 0; row < opening.size(); ++row) {
    const Logits of_row = logits.subspan(row * width, width);
    const double normalizer = LogNormalizer(of_row);
    for (size_t i = 0; i < width; ++i) {
      gradient[row * width + i] = static_cast<float>(-weight * std::exp(of_row[i] - normalizer));
    }
    gradient[row * width + opening[row]] += static_cast<float>(weight);
  }
}

}  // namespace mechinterp::engine
