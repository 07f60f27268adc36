#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "clients/commands/tool.h"
#include "clients/lib/analysis_client.h"
#include "clients/lib/channel_wait.h"
#include "clients/lib/connection.h"
#include "clients/lib/files.h"
#include "clients/lib/results_io.h"
#include "mechinterp/v1/tool.pb.h"
#include "services/common/experiments.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

struct ImportFlags {
  std::string analysis_server = "127.0.0.1:50052";
  std::string dashboard_url;
  std::string output_dir = "outputs";
  std::string run_id;
  std::string output;
};

absl::StatusOr<v1::Study> ReadStudy(const std::string& output_dir) {
  ABSTRACT_ASSIGN_OR_RETURN(v1::Study study, ReadResultsFiles(ResultsFolder(output_dir)));
  std::vector<std::string> commands;
  for (const ExperimentInfo& experiment : Experiments()) {
    if (ResultsOf(study, experiment.kind) != nullptr) return study;
    commands.push_back(absl::StrCat("`abstract ", experiment.name, "`"));
  }
  return absl::NotFoundError(absl::StrCat(ResultsFolder(output_dir), ": no results here; first run one of ",
                                          absl::StrJoin(commands, ", ")));
}

std::string HostOf(const std::string& address) { return address.substr(0, address.rfind(':')); }

// Where a browser finds the run; empty when the service serves no pages. A host that stands for all
// of the service's interfaces is the one by which it was reached.
std::string UrlOf(const v1::ImportRunResponse& run, const ImportFlags& flags) {
  std::string base = flags.dashboard_url;
  if (base.empty() && !run.http_address().empty()) {
    const std::string host = HostOf(run.http_address());
    const bool is_any = host == "0.0.0.0" || host == "[::]";
    base = absl::StrCat("http://", is_any ? HostOf(flags.analysis_server) : host,
                        run.http_address().substr(host.size()));
  }
  return base.empty() ? "" : absl::StrCat(base, "/runs/", run.run_id());
}

// Says at the first of its waits that the service is not there.
std::function<void(absl::Duration)> WaitAndTell(const Tool& tool, const std::string& address,
                                                std::function<void(absl::Duration)> pause) {
  return [&tool, address, pause = std::move(pause), told = false](absl::Duration wait) mutable {
    if (!std::exchange(told, true)) tool.Note(absl::StrCat("no answer from ", address, "; trying again"));
    pause(wait);
  };
}

absl::StatusOr<AnalysisClient> Connect(const Tool& tool, const std::string& address) {
  ABSTRACT_ASSIGN_OR_RETURN(const ConnectionCredentials credentials, ReadCredentials(tool.connection));
  ABSTRACT_RETURN_IF_ERROR(MaySend(credentials, address));
  const std::shared_ptr<grpc::Channel> channel = ConnectTo(address, credentials);
  if (!tool.quiet && !RespondsWithin(*channel, kSoon)) {
    tool.Note(absl::StrCat("no answer from ", address, " yet; still trying"));
  }
  RetryPolicy retry;
  retry.max_attempts = tool.max_attempts;
  return AnalysisClient(v1::AnalysisService::NewStub(channel), absl::Seconds(tool.timeout_seconds), retry,
                        WaitAndTell(tool, address, WaitOn(channel)));
}

absl::Status RunImport(Tool& tool, const ImportFlags& flags) {
  v1::ImportRunRequest request;
  request.set_run_id(flags.run_id);
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_study(), ReadStudy(flags.output_dir));
  if (!flags.output.empty()) ABSTRACT_RETURN_IF_ERROR(CheckWritable(flags.output));
  tool.analysis_server = flags.analysis_server;
  ABSTRACT_ASSIGN_OR_RETURN(AnalysisClient client, Connect(tool, flags.analysis_server));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::ImportRunResponse run, client.ImportRun(request));
  tool.Note(absl::StrCat("imported as run ", run.run_id()));
  v1::ImportReport report;
  report.set_run_id(run.run_id());
  report.set_dashboard_url(UrlOf(run, flags));
  if (!flags.output.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string html, client.RenderDashboard(run.run_id()));
    ABSTRACT_RETURN_IF_ERROR(WriteTextFileAtomically(flags.output, html));
    report.set_output_path(flags.output);
  } else if (report.dashboard_url().empty()) {
    tool.Note("the analysis service serves no pages; --output saves the dashboard to a file");
  }
  if (tool.json) return PrintJson(tool, report);
  const std::string& place = flags.output.empty() ? report.dashboard_url() : report.output_path();
  tool.streams.out << (place.empty() ? run.run_id() : place) << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddImportCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand("import", "Send results to the analysis service");
  const auto flags = std::make_shared<ImportFlags>();
  command.AddOption("--analysis-server", flags->analysis_server, "Address of the analysis service");
  command.AddOption(
      "--dashboard-url", flags->dashboard_url,
      "Where browsers reach the analysis service, behind a proxy say; default: as the service tells");
  command.AddOption("--output-dir", flags->output_dir, "The folder with results/");
  command.AddOption("--run-id", flags->run_id, "Name of the run; default: the service makes one");
  command.AddOption("--output,-o", flags->output, "Save the dashboard to this file, as one HTML page")
      .Environment("ABSTRACT_DASHBOARD_OUTPUT");
  tool.SetActionOf(command, [&tool, flags] { return RunImport(tool, *flags); });
}

}  // namespace mechinterp
