#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/commands/tool.h"
#include "clients/lib/model_client.h"
#include "clients/lib/results_io.h"
#include "clients/lib/text_table.h"
#include "clients/report/hypotheses.h"
#include "clients/report/report.h"
#include "services/common/experiments.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

struct ReportFlags {
  std::string output_dir = "outputs";
};

std::string VerdictTable(const v1::Study& study) {
  TextTable table({"verdict", "claim"});
  table.AlignLeft({0, 1});
  for (const Hypothesis& hypothesis : JudgeHypotheses(study)) {
    table.AddRow({VerdictName(hypothesis.verdict), hypothesis.claim});
  }
  return table.ToString();
}

// What the results' readers take for granted.
absl::Status CheckResults(const v1::Study& study) {
  const v1::DirectionResults& direction = study.direction();
  if (!direction.has_chosen() || direction.chosen() < static_cast<uint32_t>(direction.candidates_size())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(InfoOf(v1::EXPERIMENT_KIND_DIRECTION).file_name, ": chosen: ", direction.chosen(),
                   " is no index of candidates, of which there are ", direction.candidates_size()));
}

// A report is of one model.
absl::Status CheckOneModel(const v1::Study& study) {
  const ExperimentInfo* first = nullptr;
  for (const ExperimentInfo& experiment : Experiments()) {
    const google::protobuf::Message* const results = ResultsOf(study, experiment.kind);
    if (results == nullptr) continue;
    if (first == nullptr) first = &experiment;
    const v1::ModelIdentity& expected = ProvenanceOf(*ResultsOf(study, first->kind)).model();
    if (absl::Status status = CheckSameModel(expected, ProvenanceOf(*results).model()); !status.ok()) {
      return WithContext(status,
                         absl::StrCat(experiment.file_name, " is not of the model of ", first->file_name));
    }
  }
  return absl::OkStatus();
}

absl::Status RunCommand(Tool& tool, const ReportFlags& flags) {
  const std::string folder = ResultsFolder(flags.output_dir);
  ABSTRACT_ASSIGN_OR_RETURN(const v1::Study study, ReadResultsFiles(folder));
  if (study.ByteSizeLong() == 0) {
    return absl::NotFoundError(absl::StrCat(folder, " holds no results; `abstract study` makes them"));
  }
  ABSTRACT_RETURN_IF_ERROR(CheckResults(study));
  ABSTRACT_RETURN_IF_ERROR(CheckOneModel(study));
  const Document document = BuildReport(study);
  const std::filesystem::path base = std::filesystem::path(flags.output_dir) / "report";
  const std::pair<std::string, std::string> files[] = {{base.string() + ".md", document.ToMarkdown()},
                                                       {base.string() + ".html", document.ToHtml()}};
  for (const auto& [path, text] : files) {
    ABSTRACT_RETURN_IF_ERROR(WriteTextFileAtomically(path, text));
    tool.Note(absl::StrCat("report: ", path));
  }
  if (tool.json) return PrintJson(tool, study);
  tool.Print(VerdictTable(study));
  return absl::OkStatus();
}

}  // namespace

void AddReportCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "report",
      "Write what the results say: each hypothesis with its verdict and numbers, as Markdown and HTML");
  const auto flags = std::make_shared<ReportFlags>();
  command.AddOption("--output-dir", flags->output_dir,
                    "Folder with results/ in it, to write report.md and .html into");
  tool.SetActionOf(command, [&tool, flags] { return RunCommand(tool, *flags); });
}

}  // namespace mechinterp
