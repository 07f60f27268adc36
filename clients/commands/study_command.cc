#include <algorithm>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "clients/commands/tool.h"
#include "clients/lib/results_io.h"
#include "services/common/experiments.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr const char* kExperiments[] = {"baseline", "patching", "ablation", "circuit", "direction"};
constexpr char kReport[] = "report";

struct StudyCommandFlags {
  std::string only;  // steps with commas between; empty: all
  std::string output_dir = "outputs";
  bool restart = false;
};

std::vector<std::string> AllSteps() {
  std::vector<std::string> steps(std::begin(kExperiments), std::end(kExperiments));
  steps.push_back(kReport);
  return steps;
}

absl::Status CheckSteps(const std::vector<std::string>& steps) {
  const std::vector<std::string> all = AllSteps();
  for (const std::string& step : steps) {
    if (std::find(all.begin(), all.end(), step) != all.end()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--only: there is no step \"", step, "\"; there are ", absl::StrJoin(all, ", ")));
  }
  return absl::OkStatus();
}

// The options of the tool itself, as they were given: what stands on the command line but the
// command's name and its own options.
std::vector<std::string> CommonArguments(const std::vector<std::string>& arguments) {
  std::vector<std::string> common;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string name =
        std::vector<std::string>(absl::StrSplit(arguments[i], absl::MaxSplits('=', 1)))[0];
    if (name == "study" || name == "--restart") continue;
    if (name == "--only" || name == "--output-dir") {
      if (name == arguments[i]) ++i;  // its value comes apart
      continue;
    }
    common.push_back(arguments[i]);
  }
  return common;
}

// One command of this program, in this process.
absl::Status RunStep(const Tool& tool, const StudyCommandFlags& flags, const std::string& step) {
  std::vector<std::string> arguments = {"abstract"};
  for (std::string& argument : CommonArguments(tool.arguments)) arguments.push_back(std::move(argument));
  arguments.insert(arguments.end(), {step, "--output-dir", flags.output_dir});
  if (step != kReport) arguments.push_back(flags.restart ? "--restart" : "--skip-finished");
  std::vector<const char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(argument.c_str());
  // With --json the one document is the study, in the end.
  std::ostringstream unread;
  const ToolStreams& own = tool.streams;
  const ToolStreams streams{own.in, tool.json ? unread : own.out, own.err, own.err_is_terminal,
                            own.out_is_terminal};
  const int exit_code = RunTool(static_cast<int>(pointers.size()), pointers.data(), streams);
  if (exit_code == 0) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(
      "the study stopped in ", step, "; what is finished is kept, and the same command goes on from there"));
}

absl::Status RunCommand(Tool& tool, const StudyCommandFlags& flags) {
  const std::vector<std::string> steps =
      flags.only.empty() ? AllSteps()
                         : std::vector<std::string>(absl::StrSplit(flags.only, ',', absl::SkipWhitespace()));
  ABSTRACT_RETURN_IF_ERROR(CheckSteps(steps));
  for (const std::string& step : AllSteps()) {  // whatever order they were named in
    if (std::find(steps.begin(), steps.end(), step) == steps.end()) continue;
    ABSTRACT_RETURN_IF_ERROR(RunStep(tool, flags, step));
  }
  if (!tool.json) return absl::OkStatus();
  ABSTRACT_ASSIGN_OR_RETURN(const v1::Study study, ReadResultsFiles(ResultsFolder(flags.output_dir)));
  return PrintJson(tool, study);
}

}  // namespace

void AddStudyCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand("study",
                                            "Run the whole study: baseline, patching, ablation, circuit, "
                                            "direction, report; again: what is left of it");
  const auto flags = std::make_shared<StudyCommandFlags>();
  command.AddOption(
      "--only", flags->only,
      "Only these steps, with commas between; each takes its options from its section of --config, or the "
      "environment");
  command.AddOption("--output-dir", flags->output_dir, "Folder to write results/ and the report into");
  command.AddFlag("--restart", flags->restart, "Start over instead of going on");
  tool.SetActionOf(command, [&tool, flags] { return RunCommand(tool, *flags); });
}

}  // namespace mechinterp
