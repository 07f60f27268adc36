#include "services/engine/operations/patch_run.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "services/common/status_macros.h"
#include "services/engine/forward/kv_cache.h"

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

}  // namespace

absl::Status ScoreOpenings(RunContext& context, const TokenizedPrompt& prompt,
                           std::shared_ptr<const HookPlan> plan, std::shared_ptr<const KvCache> cache,
                           absl::Span<const float> last_logits, const MetricOptions& options,
                           RunMetrics& metrics) {
  std::vector<const std::vector<TokenId>*> openings;
  for (const auto& opening : options.refusal_openings) openings.push_back(&opening);
  for (const auto& opening : options.compliance_openings) openings.push_back(&opening);

  std::vector<Segment> segments(openings.size());
  std::vector<Segment*> pointers;
  for (size_t i = 0; i < openings.size(); ++i) {
    Segment& segment = segments[i];
    segment.tokens.assign(openings[i]->begin(), openings[i]->end() - 1);
    segment.first_position = prompt.length();
    segment.shared = cache;
    segment.shared_length = prompt.length();
    segment.plan = plan;
    segment.logits_rows = LogitsRows::kAll;
    if (!segment.tokens.empty()) pointers.push_back(&segment);
  }
  ABSTRACT_RETURN_IF_ERROR(context.Run(pointers));

  std::vector<double> scores;
  for (size_t i = 0; i < openings.size(); ++i)
    scores.push_back(OpeningLogProbability(*openings[i], last_logits, segments[i]));
  const absl::Span<const double> all(scores);
  const size_t refusals = options.refusal_openings.size();
  if (refusals > 0) metrics.refusal_opening_log_probability = LogSumExp(all.first(refusals));
  if (refusals < all.size()) metrics.compliance_opening_log_probability = LogSumExp(all.subspan(refusals));
  return absl::OkStatus();
}

absl::StatusOr<PatchRun> RunWithPatch(RunContext& context, const TokenizedPrompt& prompt,
                                      std::shared_ptr<const HookPlan> plan, const MetricOptions& metrics,
                                      const std::optional<SamplingOptions>& continuation) {
  const int new_tokens = continuation ? continuation->max_new_tokens : 0;
  const PrefillRequest requests[] = {{prompt, nullptr, new_tokens}, {prompt, std::move(plan), new_tokens}};
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<Prefilled> runs, Prefill(context, requests));
  Prefilled& clean = runs[0];
  Prefilled& patched = runs[1];
  PatchRun result;
  result.clean = MeasureLogits(clean.logits.values, clean.logits.values, metrics);
  result.patched = MeasureLogits(patched.logits.values, clean.logits.values, metrics);
  if (metrics.has_openings()) {
    for (auto [run, measured] : {std::pair(&clean, &result.clean), std::pair(&patched, &result.patched)}) {
      ABSTRACT_RETURN_IF_ERROR(
          ScoreOpenings(context, prompt, run->plan, run->cache, run->logits.values, metrics, *measured));
    }
  }
  if (continuation) {
    ABSTRACT_ASSIGN_OR_RETURN(result.clean_continuation, Continue(context, clean, *continuation, nullptr));
    ABSTRACT_ASSIGN_OR_RETURN(result.patched_continuation,
                              Continue(context, patched, *continuation, nullptr));
  }
  return result;
}

int64_t OpeningBytes(const ModelConfig& config, const MetricOptions& metrics) {
  int64_t rows = 0;
  for (const auto* openings : {&metrics.refusal_openings, &metrics.compliance_openings}) {
    for (const std::vector<TokenId>& opening : *openings) rows += static_cast<int64_t>(opening.size()) - 1;
  }
  return rows * config.vocabulary_size * static_cast<int64_t>(sizeof(float));
}

int64_t PatchRunBytes(const ModelConfig& config, int64_t prompt_length, const MetricOptions& metrics,
                      const std::optional<SamplingOptions>& continuation) {
  SamplingOptions none;
  none.max_new_tokens = 0;
  const SamplingOptions sampling = continuation.value_or(none);
  // Comparing, scoring and continuing come one after the other.
  const int64_t step = std::max({ReferenceBytes(config.vocabulary_size), OpeningBytes(config, metrics),
                                 SamplerBytes(sampling, config.vocabulary_size)});
  return 2 * GenerationBytes(config, prompt_length, sampling.max_new_tokens) + step;
}

}  // namespace mechinterp::engine
