#include "services/engine/operations/run_metrics.h"

#include <vector>

#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

// log p(opening | prompt), given the segment that read all but its last token
// (no segment where there is one token).
double OpeningLogProbability(const std::vector<TokenId>& opening, absl::Span<const float> last_logits,
                             const Segment& segment) {
  double total = LogProbability(last_logits, opening[0]);
  const size_t vocabulary = last_logits.size();
  for (size_t i = 1; i < opening.size(); ++i) {
    const absl::Span<const float> row(segment.logits.values.data() + (i - 1) * vocabulary, vocabulary);
    total += LogProbability(row, opening[i]);
  }
  return total;
}

// Sets the metrics' opening fields.
absl::Status ScoreOpenings(RunContext& context, const MeasuredRun& run, const MetricOptions& options,
                           RunMetrics& metrics) {
  std::vector<const std::vector<TokenId>*> openings;
  for (const auto& opening : options.refusal_openings) openings.push_back(&opening);
  for (const auto& opening : options.compliance_openings) openings.push_back(&opening);

  std::vector<Segment> segments(openings.size());
  std::vector<Segment*> pointers;
  for (size_t i = 0; i < openings.size(); ++i) {
    Segment& segment = segments[i];
    segment.tokens.assign(openings[i]->begin(), openings[i]->end() - 1);
    segment.first_position = segment.prompt_length = run.prompt.length();
    segment.shared = run.cache;
    segment.shared_length = run.prompt.length();
    segment.plan = run.plan;
    segment.logits_rows = LogitsRows::kAll;
    if (!segment.tokens.empty()) pointers.push_back(&segment);
  }
  ABSTRACT_RETURN_IF_ERROR(context.Run(pointers));

  std::vector<double> scores;
  for (size_t i = 0; i < openings.size(); ++i)
    scores.push_back(OpeningLogProbability(*openings[i], run.last_logits, segments[i]));
  const absl::Span<const double> all(scores);
  const size_t refusals = options.refusal_openings.size();
  if (refusals > 0) metrics.refusal_opening_log_probability = LogSumExp(all.first(refusals));
  if (refusals < all.size()) metrics.compliance_opening_log_probability = LogSumExp(all.subspan(refusals));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RunMetrics> MeasureRun(RunContext& context, const MeasuredRun& run,
                                      const ReferenceDistribution* clean, const MetricOptions& options) {
  RunMetrics metrics = clean == nullptr ? MeasureLogits(run.last_logits, options)
                                        : MeasureLogits(run.last_logits, *clean, options);
  if (options.has_openings()) ABSTRACT_RETURN_IF_ERROR(ScoreOpenings(context, run, options, metrics));
  return metrics;
}

int64_t OpeningBytes(const ModelConfig& config, const MetricOptions& options) {
  int64_t rows = 0;
  for (const auto* openings : {&options.refusal_openings, &options.compliance_openings}) {
    for (const std::vector<TokenId>& opening : *openings) rows += static_cast<int64_t>(opening.size()) - 1;
  }
  return rows * config.vocabulary_size * static_cast<int64_t>(sizeof(float));
}

int64_t MetricsBytes(const ModelConfig& config, const MetricOptions& options) {
  return ReferenceBytes(config.vocabulary_size) + OpeningBytes(config, options);
}

}  // namespace mechinterp::engine
