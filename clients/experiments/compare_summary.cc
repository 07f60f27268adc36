#include "clients/experiments/compare_summary.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "clients/experiments/summaries.h"
#include "services/common/statistics.h"

namespace mechinterp {
namespace {

// One measure of the counted positions, by prompt.
using Clusters = std::vector<std::vector<double>>;
using Measure = std::function<std::optional<double>(const v1::PositionComparison&)>;

// A tree of all prompts' tokens: a position whose node is there already has the
// same tokens before it as one of an earlier prompt.
void MarkRepeatedContexts(v1::CompareResults& results) {
  std::map<std::pair<size_t, uint32_t>, size_t> nodes;  // (parent, token id) to node.
  for (v1::PromptComparison& prompt : *results.mutable_prompts()) {
    size_t node = 0;
    for (v1::PositionComparison& position : *prompt.mutable_positions()) {
      const auto [found, is_new] = nodes.try_emplace({node, position.token_id()}, nodes.size() + 1);
      node = found->second;
      position.set_repeated_context(!is_new);
    }
  }
}

Clusters Collect(const v1::CompareResults& results, const Measure& measure) {
  Clusters clusters;
  for (const v1::PromptComparison& prompt : results.prompts()) {
    std::vector<double>& cluster = clusters.emplace_back();
    for (const v1::PositionComparison& position : prompt.positions()) {
      if (position.repeated_context()) continue;
      if (const std::optional<double> value = measure(position)) cluster.push_back(*value);
    }
  }
  return clusters;
}

std::vector<double> Joined(const Clusters& clusters) {
  std::vector<double> samples;
  for (const auto& cluster : clusters) samples.insert(samples.end(), cluster.begin(), cluster.end());
  return samples;
}

v1::Estimate EstimateOf(const Clusters& clusters, uint64_t seed) {
  const std::vector<double> samples = Joined(clusters);
  const Interval interval = BootstrapClusteredMeanInterval(clusters, seed);
  v1::Estimate estimate;
  estimate.set_mean(Mean(samples));
  estimate.set_lower(interval.lower);
  estimate.set_upper(interval.upper);
  estimate.set_sample_count(static_cast<uint32_t>(samples.size()));
  return estimate;
}

// Sets what PositionSummary and LayerError share.
template <typename Message>
void SetQuantiles(std::vector<double> samples, Message& message) {
  std::sort(samples.begin(), samples.end());
  message.set_median(Quantile(samples, 0.5));
  message.set_percentile_99(Quantile(samples, 0.99));
  message.set_maximum(Quantile(samples, 1));
}

v1::PositionSummary Summarize(const v1::CompareResults& results, const Measure& measure) {
  const Clusters clusters = Collect(results, measure);
  v1::PositionSummary summary;
  *summary.mutable_mean() = EstimateOf(clusters, results.provenance().seed());
  SetQuantiles(Joined(clusters), summary);
  return summary;
}

// The exponential of a mean logarithm.
v1::Estimate GeometricMean(const v1::CompareResults& results, const Measure& logarithm) {
  v1::Estimate estimate = EstimateOf(Collect(results, logarithm), results.provenance().seed());
  estimate.set_mean(std::exp(estimate.mean()));
  estimate.set_lower(std::exp(estimate.lower()));
  estimate.set_upper(std::exp(estimate.upper()));
  return estimate;
}

// Unset where prompts of one token leave nothing to predict.
void SetPerplexities(v1::CompareResults& results) {
  const auto of = [](auto value) -> Measure {
    return [value](const v1::PositionComparison& position) -> std::optional<double> {
      if (!position.has_reference_log_probability()) return std::nullopt;
      return value(position);
    };
  };
  const v1::Estimate reference =
      GeometricMean(results, of([](const auto& p) { return -p.reference_log_probability(); }));
  if (reference.sample_count() == 0) return;
  v1::PerplexityComparison& perplexity = *results.mutable_perplexity();
  *perplexity.mutable_reference() = reference;
  *perplexity.mutable_other() =
      GeometricMean(results, of([](const auto& p) { return -p.other_log_probability(); }));
  *perplexity.mutable_ratio() = GeometricMean(
      results, of([](const auto& p) { return p.reference_log_probability() - p.other_log_probability(); }));
}

void SetAgreement(v1::CompareResults& results) {
  const std::vector<double> agreed = Joined(Collect(results, [](const auto& position) {
    return position.reference_top_token_id() == position.other_top_token_id() ? 1.0 : 0.0;
  }));
  const int count = static_cast<int>(std::count(agreed.begin(), agreed.end(), 1.0));
  *results.mutable_top_token_agreement() = MakeRate(count, static_cast<int>(agreed.size()));
  results.set_counted_position_count(static_cast<uint32_t>(agreed.size()));
}

void AddLayerErrors(v1::CompareResults& results) {
  for (uint32_t layer = 0; layer < results.layer_count(); ++layer) {
    v1::LayerError& error = *results.add_layers();
    error.set_layer(layer);
    SetQuantiles(Joined(Collect(results,
                                [layer](const auto& position) {
                                  return position.residual_relative_errors(static_cast<int>(layer));
                                })),
                 error);
  }
}

void SummarizeContinuations(v1::CompareResults& results) {
  int identical = 0;
  int total = 0;
  std::vector<double> matching;
  for (const v1::PromptComparison& prompt : results.prompts()) {
    if (!prompt.has_continuation()) continue;
    ++total;
    if (prompt.continuation().identical()) {
      ++identical;
    } else {
      matching.push_back(prompt.continuation().matching_token_count());
    }
  }
  if (total == 0) return;
  v1::ContinuationSummary& summary = *results.mutable_continuations();
  *summary.mutable_identical() = MakeRate(identical, total);
  if (matching.empty()) return;
  std::sort(matching.begin(), matching.end());
  summary.set_median_matching_token_count(Quantile(matching, 0.5));
}

}  // namespace

void SummarizeComparison(v1::CompareResults& results) {
  MarkRepeatedContexts(results);
  int position_count = 0;
  for (const v1::PromptComparison& prompt : results.prompts()) position_count += prompt.positions_size();
  results.set_position_count(static_cast<uint32_t>(position_count));
  SetAgreement(results);
  *results.mutable_kl_divergence() =
      Summarize(results, [](const auto& position) { return position.kl_divergence(); });
  *results.mutable_top_log_probability_difference() = Summarize(results, [](const auto& position) {
    return std::abs(position.other_top_log_probability() - position.reference_top_log_probability());
  });
  SetPerplexities(results);
  AddLayerErrors(results);
  SummarizeContinuations(results);
}

}  // namespace mechinterp
