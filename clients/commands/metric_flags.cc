#include "clients/commands/metric_flags.h"

#include "clients/experiments/metric_tokens.h"
#include "clients/lib/selectors.h"
#include "services/common/status_macros.h"

namespace mechinterp {

void MetricFlags::AddTo(Command command) {
  openings.AddTo(command);
  command.AddOption("--refusal-ids", refusal_ids, "The metric's refusal tokens by id, with commas");
  command.AddOption("--compliance-ids", compliance_ids, "Its compliance tokens by id");
}

bool MetricFlags::Suit(const PromptFlags& prompt) const {
  return prompt.token_ids.empty() || !refusal_ids.empty() || !compliance_ids.empty();
}

absl::StatusOr<v1::MetricOptions> MetricFlags::Make(ModelClient& client, const PromptFlags& prompt) const {
  v1::MetricOptions metrics;
  if (!refusal_ids.empty() || !compliance_ids.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const auto refusal, ParseIndices(refusal_ids));
    ABSTRACT_ASSIGN_OR_RETURN(const auto compliance, ParseIndices(compliance_ids));
    metrics.mutable_refusal_token_ids()->Assign(refusal.begin(), refusal.end());
    metrics.mutable_compliance_token_ids()->Assign(compliance.begin(), compliance.end());
    return metrics;
  }
  if (!Suit(prompt)) {
    return FlagError("--refusal-ids", "token ids have no text: say by id which tokens are compared");
  }
  ABSTRACT_ASSIGN_OR_RETURN(const Openings found, openings.LoadOrDefault());
  ABSTRACT_ASSIGN_OR_RETURN(const MetricTokens tokens, FindMetricTokens(client, found));
  return MetricOptionsOf(tokens);
}

}  // namespace mechinterp
