#include <algorithm>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
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
#include "services/common/text.h"

namespace mechinterp {
namespace {

// Columns of a table of many positions that a terminal has room for.
constexpr size_t kPositionsPerTable = 6;

struct LensFlags {
  PromptFlags prompt;
  std::string positions = "last";
  int top = 3;
  bool resid_mid = false;
  int target_id = -1;  // -1: the likeliest in the end
  MetricFlags metric;
  std::string interventions_file;
};

// Whether it can select no more than one.
bool IsOnePosition(const v1::PositionSelector& positions) {
  if (positions.indices_size() + positions.named_size() != 1 || !positions.ranges().empty()) return false;
  return positions.named().empty() || positions.named(0) != v1::NAMED_POSITION_TEMPLATE_TAIL;
}

absl::StatusOr<v1::RunReadoutRequest> MakeRequest(const Tool& tool, const LensFlags& flags,
                                                  ModelClient& client) {
  v1::RunReadoutRequest request;
  ABSTRACT_ASSIGN_OR_RETURN(*request.add_prompts(), flags.prompt.Read(tool.streams.in));
  if (flags.metric.Suit(flags.prompt)) {
    ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_metrics(), flags.metric.Make(client, flags.prompt));
  }
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_positions(), ParsePositions(flags.positions));
  // Of several positions one is shown.
  const bool shows_all = tool.json || IsOnePosition(request.positions());
  request.mutable_metrics()->set_top_token_count(shows_all ? static_cast<uint32_t>(flags.top) : 1);
  if (!flags.interventions_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const v1::InterventionSet set, ReadInterventions(flags.interventions_file));
    *request.mutable_interventions() = set.interventions();
  }
  request.mutable_logit_lens()->set_resid_mid(flags.resid_mid);
  if (flags.target_id >= 0) {
    request.mutable_logit_lens()->set_target_token_id(static_cast<uint32_t>(flags.target_id));
  }
  return request;
}

std::string TextOf(const v1::TokenProbability& token, size_t characters) {
  return token.text().empty() ? absl::StrCat("#", token.token_id()) : Visible(token.text(), characters);
}

// "L3 pre": the stream as it enters layer 3.
std::string StreamName(const v1::HookSite& site) {
  const char* place = site.point() == v1::HOOK_POINT_RESID_PRE   ? "pre"
                      : site.point() == v1::HOOK_POINT_RESID_MID ? "mid"
                                                                 : "post";
  return absl::StrCat("L", site.layer(), " ", place);
}

std::string Signed(bool known, double value) { return known ? absl::StrFormat("%+.3f", value) : ""; }

// Of one position, all that was read.
std::string PositionTable(const std::vector<v1::LensReading>& readings) {
  const bool has_metrics = readings.front().has_logit_difference();
  std::vector<std::string> header = {"stream", "likeliest tokens"};
  if (has_metrics) header.insert(header.end(), {"logit difference", "refusal log-odds"});
  const std::string target = TextOf(readings.front().target(), 12);
  header.insert(header.end(), {"KL", absl::StrCat("p of ", target), "its rank"});
  TextTable table(header);
  table.AlignLeft({1});
  for (const v1::LensReading& reading : readings) {
    std::vector<std::string> tokens;
    for (const v1::TokenProbability& token : reading.top_tokens()) {
      tokens.push_back(absl::StrFormat("%s %.1f %%", TextOf(token, 12), 100 * token.probability()));
    }
    std::vector<std::string> row = {StreamName(reading.site()), absl::StrJoin(tokens, ", ")};
    if (has_metrics) {
      row.push_back(Signed(true, reading.logit_difference()));
      row.push_back(Signed(reading.has_refusal_log_odds(), reading.refusal_log_odds()));
    }
    row.insert(row.end(), {absl::StrFormat("%.3f", reading.kl_from_final()),
                           absl::StrFormat("%.1f %%", 100 * reading.target().probability()),
                           absl::StrCat(reading.target_rank() + 1)});
    table.AddRow(row);
  }
  return table.ToString();
}

std::string LikeliestOf(const v1::LensReading& reading) {
  return reading.top_tokens().empty() ? "" : TextOf(reading.top_tokens(0), 12);
}

// The likeliest token, in a column of this width, the logit difference where it is known, and the
// target's probability where that is asked for.
std::string GridCell(const v1::LensReading& reading, size_t width, bool has_target) {
  std::string cell = LikeliestOf(reading);
  if (!reading.has_logit_difference() && !has_target) return cell;
  cell.resize(cell.size() + width - CharacterCount(cell), ' ');
  if (reading.has_logit_difference()) absl::StrAppendFormat(&cell, " %+6.2f", reading.logit_difference());
  if (has_target) absl::StrAppendFormat(&cell, " %5.1f %%", 100 * reading.target().probability());
  return cell;
}

// Streams by positions: of each its GridCell. `readings` are of each position one after the other,
// `per_position` of each.
std::string Grid(const ReadoutOfPrompt& of_prompt, size_t per_position, size_t first, size_t count,
                 bool has_target) {
  std::vector<std::string> header = {"stream"};
  std::vector<size_t> left, widths;
  const auto reading = [&](size_t position, size_t site) -> const v1::LensReading& {
    return of_prompt.readings[position * per_position + site];
  };
  for (size_t i = first; i < first + count; ++i) {
    const uint32_t position = reading(i, 0).position();
    const std::string& piece = of_prompt.prompt.prompt_pieces(static_cast<int>(position));
    left.push_back(header.size());
    widths.push_back(0);
    for (size_t site = 0; site < per_position; ++site) {
      widths.back() = std::max(widths.back(), CharacterCount(LikeliestOf(reading(i, site))));
    }
    header.push_back(piece.empty() ? absl::StrCat(position)
                                   : absl::StrCat(position, " ", Visible(piece, 12)));
  }
  TextTable table(header);
  table.AlignLeft(left);
  for (size_t site = 0; site < per_position; ++site) {
    std::vector<std::string> row = {StreamName(reading(first, site).site())};
    for (size_t i = first; i < first + count; ++i)
      row.push_back(GridCell(reading(i, site), widths[i - first], has_target));
    table.AddRow(row);
  }
  return table.ToString();
}

std::set<uint32_t> PositionsOf(const ReadoutOfPrompt& of_prompt) {
  std::set<uint32_t> positions;
  for (const v1::LensReading& reading : of_prompt.readings) positions.insert(reading.position());
  return positions;
}

void Print(const Tool& tool, const ReadoutOfPrompt& of_prompt, bool has_target) {
  const std::set<uint32_t> positions = PositionsOf(of_prompt);
  if (positions.empty()) return;
  if (positions.size() == 1) {
    tool.Note(absl::StrCat(PositionName(of_prompt.prompt, *positions.begin()),
                           ": what would come next if each stream went straight to the head; KL is from the "
                           "last one, in nats"));
    tool.Print(PositionTable(of_prompt.readings));
    return;
  }
  const bool has_metrics = of_prompt.readings.front().has_logit_difference();
  tool.Note(absl::StrCat(
      "by position, the likeliest next token if the stream went straight to the head",
      has_metrics ? ", and the logit difference, refusal - compliance" : "",
      has_target ? absl::StrCat(", and the probability of ", TextOf(of_prompt.readings.front().target(), 12))
                 : ""));
  const size_t per_position = of_prompt.readings.size() / positions.size();
  for (size_t first = 0; first < positions.size(); first += kPositionsPerTable) {
    if (first > 0) tool.Print("\n");
    tool.Print(Grid(of_prompt, per_position, first, std::min(kPositionsPerTable, positions.size() - first),
                    has_target));
  }
}

absl::Status RunLens(Tool& tool, const LensFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "lens"));
  ABSTRACT_ASSIGN_OR_RETURN(v1::RunReadoutRequest request, MakeRequest(tool, flags, session->client()));
  ABSTRACT_ASSIGN_OR_RETURN(Readout readout, session->client().RunReadout(request));
  const auto wanted = static_cast<uint32_t>(flags.top);
  if (request.metrics().top_token_count() < wanted && PositionsOf(readout.prompts[0]).size() == 1) {
    request.mutable_metrics()->set_top_token_count(wanted);
    ABSTRACT_ASSIGN_OR_RETURN(readout, session->client().RunReadout(request));
  }
  const ReadoutOfPrompt& of_prompt = readout.prompts[0];
  if (!tool.json) {
    Print(tool, of_prompt, flags.target_id >= 0);
    return absl::OkStatus();
  }
  v1::LensReport report;
  *report.mutable_model() = readout.header.model();
  *report.mutable_prompt() = of_prompt.prompt;
  report.mutable_readings()->Assign(of_prompt.readings.begin(), of_prompt.readings.end());
  return PrintJson(tool, report);
}

}  // namespace

void AddLensCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "lens", "Show what the model would say after each layer: the residual stream, read as the head does");
  const auto flags = std::make_shared<LensFlags>();
  flags->prompt.AddTo(command);
  command.AddOption("--positions", flags->positions,
                    "3, -1, 0:5, last, last-instruction, tail, decision, several with commas, or all");
  command.AddOption("--top", flags->top, "How many of the likeliest tokens to show; of several positions one")
      .InRange(1, 1000);
  command.AddFlag("--resid-mid", flags->resid_mid, "Read the stream between attention and MLP too");
  command
      .AddOption("--target-id", flags->target_id,
                 "Token whose probability is followed; -1: the likeliest in the end")
      .InRange(-1, 1 << 30);
  flags->metric.AddTo(command);
  command.AddOption("--interventions", flags->interventions_file, "JSON file of interventions in force");
  tool.SetActionOf(command, [&tool, flags] { return RunLens(tool, *flags); });
}

}  // namespace mechinterp
