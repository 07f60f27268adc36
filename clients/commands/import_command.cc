#include <memory>

#include "absl/strings/str_cat.h"
#include "clients/commands/tool.h"
#include "clients/lib/analysis_client.h"
#include "clients/lib/connection.h"
#include "clients/lib/files.h"
#include "clients/lib/model_client.h"
#include "clients/lib/results_io.h"
#include "services/common/experiments.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

struct ImportFlags {
  std::string analysis_server = "127.0.0.1:50052";
  std::string dashboard_url = "http://127.0.0.1:8080";
  std::string output_dir = "outputs";
  std::string run_id;
  std::string output;
};

absl::StatusOr<v1::Study> ReadStudy(const std::string& output_dir) {
  ABSTRACT_ASSIGN_OR_RETURN(v1::Study study, ReadResultsFiles(ResultsFolder(output_dir)));
  for (const ExperimentInfo& experiment : Experiments()) {
    if (ResultsOf(study, experiment.kind) != nullptr) return study;
  }
  return absl::NotFoundError(absl::StrCat(ResultsFolder(output_dir),
                                          ": no results here; run `abstract baseline`, "
                                          "`patching`, `ablation` or `compare` first"));
}

absl::Status RunImport(Tool& tool, const ImportFlags& flags) {
  v1::ImportRunRequest request;
  request.set_run_id(flags.run_id);
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_study(), ReadStudy(flags.output_dir));
  if (!flags.output.empty()) ABSTRACT_RETURN_IF_ERROR(CheckWritable(flags.output));
  RetryPolicy retry;
  retry.max_attempts = tool.max_attempts;
  AnalysisClient client(v1::AnalysisService::NewStub(ConnectTo(flags.analysis_server)),
                        absl::Seconds(tool.timeout_seconds), retry);
  ABSTRACT_ASSIGN_OR_RETURN(const std::string run_id, client.ImportRun(request));
  tool.Note(absl::StrCat("imported as run ", run_id));
  if (flags.output.empty()) {
    tool.streams.out << flags.dashboard_url << "/runs/" << run_id << std::endl;
    return absl::OkStatus();
  }
  ABSTRACT_ASSIGN_OR_RETURN(const std::string html, client.RenderDashboard(run_id));
  ABSTRACT_RETURN_IF_ERROR(WriteTextFileAtomically(flags.output, html));
  tool.streams.out << flags.output << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddImportCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand("import", "Send results to the analysis service");
  const auto flags = std::make_shared<ImportFlags>();
  command.AddOption("--analysis-server", flags->analysis_server, "Address of the analysis service");
  command.AddOption("--dashboard-url", flags->dashboard_url, "Where the analysis service serves HTTP");
  command.AddOption("--output-dir", flags->output_dir, "The folder with results/");
  command.AddOption("--run-id", flags->run_id, "Name of the run; default: the service makes one");
  command.AddOption("--output,-o", flags->output, "Save the dashboard to this file, as one HTML page")
      .Environment("ABSTRACT_DASHBOARD_OUTPUT");
  tool.SetActionOf(command, [&tool, flags] { return RunImport(tool, *flags); });
}

}  // namespace mechinterp
