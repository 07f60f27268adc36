#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/commands/edit_flags.h"
#include "clients/commands/metric_flags.h"
#include "clients/commands/prompt_flags.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/lib/readout_reader.h"
#include "clients/lib/selectors.h"
#include "clients/lib/text_table.h"
#include "mechinterp/v1/tool.pb.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

struct DlaFlags {
  PromptFlags prompt;
  std::string positions = "last";
  int top = 20;
  int neurons = 0;
  MetricFlags metric;
  std::string interventions_file;
};

absl::StatusOr<v1::RunReadoutRequest> MakeRequest(const Tool& tool, const DlaFlags& flags,
                                                  ModelClient& client) {
  v1::RunReadoutRequest request;
  ABSTRACT_ASSIGN_OR_RETURN(*request.add_prompts(), flags.prompt.Read(tool.streams.in));
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_metrics(), flags.metric.Make(client, flags.prompt));
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_positions(), ParsePositions(flags.positions));
  if (!flags.interventions_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const v1::InterventionSet set, ReadInterventions(flags.interventions_file));
    *request.mutable_interventions() = set.interventions();
  }
  request.mutable_direct_attribution()->set_neuron_count(static_cast<uint32_t>(flags.neurons));
  return request;
}

bool IsNeuron(const v1::DirectContribution& contribution) {
  return contribution.site().point() == v1::HOOK_POINT_MLP_POST;
}

std::string Cell(double value) { return absl::StrFormat("%+.4f", value); }

// The `top` largest, what the others come to, and what they add up to.
std::string SendersTable(const ReadoutOfPosition& of_position, size_t top) {
  std::vector<v1::DirectContribution> senders;
  for (const v1::DirectContribution& contribution : of_position.contributions) {
    if (!IsNeuron(contribution)) senders.push_back(contribution);
  }
  std::stable_sort(senders.begin(), senders.end(), [](const auto& a, const auto& b) {
    return std::abs(a.contribution()) > std::abs(b.contribution());
  });
  TextTable table({"sender", "contribution"});
  double others = 0;
  for (size_t i = 0; i < senders.size(); ++i) {
    if (i < top) {
      table.AddRow({senders[i].name(), Cell(senders[i].contribution())});
    } else {
      others += senders[i].contribution();
    }
  }
  if (senders.size() > top) {
    const size_t count = senders.size() - top;
    table.AddRow({absl::StrCat(count, count == 1 ? " other" : " others"), Cell(others)});
  }
  table.AddRow({absl::StrCat("sum of all ", senders.size()), Cell(of_position.position.contribution_sum())});
  table.AddRow({"mean logit difference", Cell(of_position.position.mean_logit_difference())});
  return table.ToString();
}

std::string NeuronsTable(const ReadoutOfPosition& of_position) {
  TextTable table({"neuron", "contribution"});
  for (const v1::DirectContribution& contribution : of_position.contributions) {
    if (IsNeuron(contribution)) table.AddRow({contribution.name(), Cell(contribution.contribution())});
  }
  return table.ToString();
}

// Says so where the sum is not the difference.
void NoteRemainder(const Tool& tool, const v1::ReadoutPosition& position) {
  const double remainder = position.mean_logit_difference() - position.contribution_sum();
  if (std::abs(remainder) < 0.01 * std::max(1.0, std::abs(position.mean_logit_difference()))) return;
  tool.Note(absl::StrFormat(
      "the sum leaves %+.4f: the rounding of operands, or what interventions put into the stream",
      remainder));
}

void Print(const Tool& tool, const DlaFlags& flags, const ReadoutOfPrompt& of_prompt) {
  tool.Note("what each sender adds by itself to the mean refusal logit less the mean compliance logit");
  for (const ReadoutOfPosition& of_position : of_prompt.positions) {
    if (&of_position != &of_prompt.positions.front()) tool.Print("\n");
    tool.Print(absl::StrCat(PositionName(of_prompt.prompt, of_position.position.position()), "\n"));
    tool.Print(SendersTable(of_position, static_cast<size_t>(flags.top)));
    if (flags.neurons > 0) tool.Print(absl::StrCat("\n", NeuronsTable(of_position)));
    NoteRemainder(tool, of_position.position);
  }
}

absl::Status RunDla(Tool& tool, const DlaFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "dla"));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::RunReadoutRequest request, MakeRequest(tool, flags, session->client()));
  ABSTRACT_ASSIGN_OR_RETURN(const Readout readout, session->client().RunReadout(request));
  const ReadoutOfPrompt& of_prompt = readout.prompts[0];
  if (!tool.json) {
    Print(tool, flags, of_prompt);
    return absl::OkStatus();
  }
  v1::DirectAttributionReport report;
  *report.mutable_model() = readout.header.model();
  *report.mutable_prompt() = of_prompt.prompt;
  for (const ReadoutOfPosition& of_position : of_prompt.positions) {
    auto& reported = *report.add_positions();
    *reported.mutable_position() = of_position.position;
    reported.mutable_contributions()->Assign(of_position.contributions.begin(),
                                             of_position.contributions.end());
  }
  return PrintJson(tool, report);
}

}  // namespace

void AddDlaCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "dla", "Rank heads and MLPs by what each adds directly to the logits (direct logit attribution)");
  const auto flags = std::make_shared<DlaFlags>();
  flags->prompt.AddTo(command);
  command.AddOption("--positions", flags->positions,
                    "3, -1, 0:5, last, last-instruction, tail, decision, several with commas, or all");
  command.AddOption("--top", flags->top, "How many senders to show; --json prints all").InRange(1, 100000);
  command.AddOption("--neurons", flags->neurons, "How many single neurons to show too").InRange(0, 100000);
  flags->metric.AddTo(command);
  command.AddOption("--interventions", flags->interventions_file, "JSON file of interventions in force");
  tool.SetActionOf(command, [&tool, flags] { return RunDla(tool, *flags); });
}

}  // namespace mechinterp
