#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/commands/edit_flags.h"
#include "clients/commands/prompt_flags.h"
#include "clients/commands/session.h"
#include "clients/commands/study.h"
#include "clients/commands/tool.h"
#include "clients/experiments/metric_tokens.h"
#include "clients/lib/continuation_text.h"
#include "clients/lib/text_table.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

struct PatchFlags {
  PromptFlags prompt;
  EditFlags edit;
  std::string interventions_file;
  OpeningFlags openings;
  int top_tokens = 5;
  int max_new_tokens = 32;
};

absl::StatusOr<v1::RunWithPatchRequest> MakeRequest(const Tool& tool, const PatchFlags& flags,
                                                    ModelClient& client) {
  v1::RunWithPatchRequest request;
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_prompt(), flags.prompt.Read(tool.streams.in));
  if (!flags.interventions_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const v1::InterventionSet set, ReadInterventions(flags.interventions_file));
    *request.mutable_interventions() = set.interventions();
  } else {
    ABSTRACT_ASSIGN_OR_RETURN(const auto interventions, flags.edit.Make(client, flags.prompt));
    request.mutable_interventions()->Assign(interventions.begin(), interventions.end());
  }
  if (flags.prompt.token_ids.empty()) {  // Openings are text: they need a tokenizer, as the prompt did.
    ABSTRACT_ASSIGN_OR_RETURN(const Openings openings, flags.openings.LoadOrDefault());
    ABSTRACT_ASSIGN_OR_RETURN(const MetricTokens tokens, FindMetricTokens(client, openings));
    *request.mutable_metrics() = MetricOptionsOf(tokens);
  }
  request.mutable_metrics()->set_top_token_count(static_cast<uint32_t>(flags.top_tokens));
  if (flags.max_new_tokens > 0) {
    request.mutable_continuation()->set_max_new_tokens(static_cast<uint32_t>(flags.max_new_tokens));
  }
  return request;
}

std::string MetricsTable(const v1::RunWithPatchResponse& response) {
  TextTable table({"metric (last prompt position)", "clean", "patched", "change"});
  const auto add = [&](const char* name, bool known, double clean, double patched) {
    if (!known) return;
    table.AddRow({name, absl::StrFormat("%.4f", clean), absl::StrFormat("%.4f", patched),
                  absl::StrFormat("%+.4f", patched - clean)});
  };
  const v1::RunMetrics& clean = response.clean();
  const v1::RunMetrics& patched = response.patched();
  add("logit difference, refusal - compliance", clean.has_logit_difference(), clean.logit_difference(),
      patched.logit_difference());
  add("refusal log-odds", clean.has_refusal_log_odds(), clean.refusal_log_odds(), patched.refusal_log_odds());
  add("KL from clean", patched.has_kl_from_clean(), clean.kl_from_clean(), patched.kl_from_clean());
  return table.ToString();
}

std::string TokenText(const v1::TokenProbability& token) {
  const std::string text =
      token.text().empty() ? absl::StrCat("#", token.token_id()) : OneLine(token.text(), 24);
  return absl::StrFormat("%5.1f %%  %s", 100 * token.probability(), text);
}

std::string TopTokensTable(const v1::RunWithPatchResponse& response) {
  TextTable table({"rank", "clean", "patched"});
  table.AlignLeft({1, 2});
  const auto cell = [](const v1::RunMetrics& metrics, int i) {
    return i < metrics.top_tokens_size() ? TokenText(metrics.top_tokens(i)) : "";
  };
  for (int i = 0; i < std::max(response.clean().top_tokens_size(), response.patched().top_tokens_size());
       ++i) {
    table.AddRow({absl::StrCat(i + 1), cell(response.clean(), i), cell(response.patched(), i)});
  }
  return table.ToString();
}

void Print(const Tool& tool, const v1::RunWithPatchResponse& response) {
  tool.Print(MetricsTable(response));
  if (response.clean().top_tokens_size() > 0) tool.Print(absl::StrCat("\n", TopTokensTable(response)));
  std::ostream& out = tool.streams.out;
  if (response.has_clean_continuation()) {
    out << "\nclean:   " << TextOrIds(response.clean_continuation()) << "\n";
  }
  if (response.has_patched_continuation()) {
    out << "patched: " << TextOrIds(response.patched_continuation()) << "\n";
  }
  out << std::flush;
}

absl::Status RunPatch(Tool& tool, const PatchFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "patch"));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::RunWithPatchRequest request,
                            MakeRequest(tool, flags, session->client()));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::RunWithPatchResponse response, session->client().RunWithPatch(request));
  if (tool.json) return PrintJson(tool, response);
  Print(tool, response);
  return absl::OkStatus();
}

}  // namespace

void AddPatchCommand(Command app, Tool& tool) {
  const Command command =
      app.AddSubcommand("patch", "Run a prompt with an intervention and compare with the clean run");
  const auto flags = std::make_shared<PatchFlags>();
  flags->prompt.AddTo(command);
  flags->edit.AddTo(command);
  command.AddOption(
      "--interventions", flags->interventions_file,
      "JSON file of interventions, {\"interventions\": [...]}, in place of --site and the like");
  flags->openings.AddTo(command);
  command.AddOption("--top-tokens", flags->top_tokens, "Number of most likely next tokens to show")
      .InRange(0, 1000);
  command.AddOption("--max-new-tokens", flags->max_new_tokens, "Longest continuation; 0: none").NonNegative();
  tool.SetActionOf(command, [&tool, flags] { return RunPatch(tool, *flags); });
}

}  // namespace mechinterp
