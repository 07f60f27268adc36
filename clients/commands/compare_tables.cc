#include "clients/commands/compare_tables.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/commands/study.h"
#include "clients/lib/continuation_text.h"
#include "clients/lib/text_table.h"

namespace mechinterp {
namespace {

constexpr int kBarWidth = 32;
constexpr size_t kContextBytes = 48;
constexpr int kDifferingContinuations = 3;

std::string Number(double value) { return absl::StrFormat("%.3g", value); }

// "1.2e-05 [1.1e-05, 1.4e-05]"; one prompt alone has no interval.
std::string WithInterval(const v1::Estimate& estimate, int prompt_count, int digits) {
  const auto number = [digits](double value) { return absl::StrFormat("%.*g", digits, value); };
  if (prompt_count < 2) return number(estimate.mean());
  return absl::StrCat(number(estimate.mean()), " [", number(estimate.lower()), ", ", number(estimate.upper()),
                      "]");
}

std::string Bar(double value, double largest) {
  if (!(largest > 0)) return "";
  return std::string(static_cast<size_t>(std::lround(kBarWidth * value / largest)), '#');
}

// What stands before a prediction: the last pieces that fit, "...How do I kill".
std::string ContextOf(const PositionReference& reference) {
  std::string context;
  int i = reference.index;
  for (; i >= 0; --i) {
    const v1::PositionComparison& position = reference.prompt->positions(i);
    const std::string piece =
        position.piece().empty() ? absl::StrCat("#", position.token_id(), " ") : position.piece();
    if (!context.empty() && piece.size() + context.size() > kContextBytes) break;
    context = piece + context;
  }
  return OneLine(i >= 0 ? "..." + context : context, kContextBytes + 3);
}

std::string Shown(const std::string& text) { return absl::StrCat("\"", OneLine(text, 20), "\""); }

}  // namespace

std::string NextTokenTable(const v1::CompareResults& results) {
  TextTable table({"next token", "mean", "median", "99 %", "largest"});
  const auto add = [&](const char* name, const v1::PositionSummary& summary) {
    table.AddRow({name, WithInterval(summary.mean(), results.prompts_size(), 3), Number(summary.median()),
                  Number(summary.percentile_99()), Number(summary.maximum())});
  };
  add("KL(reference || other), nats", results.kl_divergence());
  add("|difference| of log p(top token)", results.top_log_probability_difference());
  std::string text = table.ToString();
  const v1::Rate& agreement = results.top_token_agreement();
  absl::StrAppendFormat(&text, "\nsame top token: %s, %d of %d positions\n", RateText(agreement),
                        agreement.success_count(), agreement.total_count());
  if (results.has_perplexity()) {
    const v1::PerplexityComparison& perplexity = results.perplexity();
    absl::StrAppendFormat(
        &text, "perplexity: reference %.5g, other %.5g; ratio %s (of the prompts, template included)\n",
        perplexity.reference().mean(), perplexity.other().mean(),
        WithInterval(perplexity.ratio(), results.prompts_size(), 6));
  }
  return text;
}

std::string LayerTable(const v1::CompareResults& results) {
  double largest = 0;
  for (const v1::LayerError& error : results.layers()) largest = std::max(largest, error.median());
  TextTable table({"layer", "median", "99 %", "largest", "median as a bar"});
  table.AlignLeft({4});
  for (const v1::LayerError& error : results.layers()) {
    table.AddRow({absl::StrCat(error.layer()), Number(error.median()), Number(error.percentile_99()),
                  Number(error.maximum()), Bar(error.median(), largest)});
  }
  return table.ToString();
}

std::vector<PositionReference> LargestDivergences(const v1::CompareResults& results, size_t count) {
  std::vector<PositionReference> positions;
  for (const v1::PromptComparison& prompt : results.prompts()) {
    for (int i = 0; i < prompt.positions_size(); ++i) {
      const v1::PositionComparison& position = prompt.positions(i);
      if (!position.repeated_context() && position.kl_divergence() > 0) positions.push_back({&prompt, i});
    }
  }
  std::stable_sort(positions.begin(), positions.end(), [](const auto& a, const auto& b) {
    return a.position().kl_divergence() > b.position().kl_divergence();
  });
  if (positions.size() > count) positions.resize(count);
  return positions;
}

std::string DivergenceTable(const std::vector<PositionReference>& positions,
                            const std::function<std::string(uint32_t)>& text_of) {
  TextTable table({"prompt", "position", "after", "KL", "reference", "p", "p in other", "other"});
  table.AlignLeft({2, 4, 7});
  for (const PositionReference& reference : positions) {
    const v1::PositionComparison& position = reference.position();
    const bool same_token = position.reference_top_token_id() == position.other_top_token_id();
    table.AddRow({reference.prompt->prompt_id(), absl::StrCat(reference.index), ContextOf(reference),
                  Number(position.kl_divergence()), Shown(text_of(position.reference_top_token_id())),
                  absl::StrFormat("%.3f", std::exp(position.reference_top_log_probability())),
                  absl::StrFormat("%.3f", std::exp(position.other_top_log_probability())),
                  same_token ? "the same" : Shown(text_of(position.other_top_token_id()))});
  }
  return table.ToString();
}

std::string ContinuationText(const v1::CompareResults& results) {
  const v1::ContinuationSummary& summary = results.continuations();
  std::string text =
      absl::StrFormat("Greedy continuations of at most %d tokens: the same for %d of %d prompts, %s\n",
                      summary.max_new_tokens(), summary.identical().success_count(),
                      summary.identical().total_count(), RateText(summary.identical()));
  if (!summary.has_median_matching_token_count()) return text;
  absl::StrAppendFormat(&text, "those that differ do so after a median of %g tokens; the first of them:\n",
                        summary.median_matching_token_count());
  TextTable table({"prompt", "same tokens", "reference", "other"});
  table.AlignLeft({2, 3});
  int shown = 0;
  for (const v1::PromptComparison& prompt : results.prompts()) {
    const v1::ContinuationComparison& continuation = prompt.continuation();
    if (continuation.identical() || shown++ >= kDifferingContinuations) continue;
    table.AddRow({prompt.prompt_id(), absl::StrCat(continuation.matching_token_count()),
                  OneLine(TextOrIds(continuation.reference()), 48),
                  OneLine(TextOrIds(continuation.other()), 48)});
  }
  return absl::StrCat(text, table.ToString());
}

}  // namespace mechinterp
