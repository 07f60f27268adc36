#ifndef CLIENTS_COMMANDS_TOOL_H_
#define CLIENTS_COMMANDS_TOOL_H_

#include <functional>
#include <istream>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "clients/lib/connection.h"
#include "clients/lib/text_style.h"
#include "google/protobuf/message.h"
#include "services/common/command_line.h"

namespace mechinterp {

// What the tool reads from and writes to. Tests give their own.
struct ToolStreams {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  // Whether they are terminals: progress can be drawn on `err`, and colours are shown.
  bool err_is_terminal = false;
  bool out_is_terminal = false;
};

// Runs `abstract` with the arguments of main. Returns the exit code: 0 done, 1
// the work failed, 2 the command line is wrong.
int RunTool(int argc, const char* const* argv, const ToolStreams& streams);

// What the subcommands share while one of them is run.
struct Tool {
  explicit Tool(const ToolStreams& its_streams) : streams(its_streams) {}

  ToolStreams streams;
  // Options of every command.
  std::string server = "127.0.0.1:50051";
  ConnectionOptions connection;
  double timeout_seconds = 600;
  int max_attempts = 6;
  std::string metrics_address;
  // Option of `compare`; here for the hint about servers that do not answer.
  std::string other_server;
  // What `import` talks to, while it does; for the hint too.
  std::string analysis_server;
  bool quiet = false;
  // The result is one JSON document on `streams.out`, and nothing else is there.
  bool json = false;
  // What the command line takes; once it has been parsed.
  std::function<CommandDescription()> describe;
  // The command line without the program.
  std::vector<std::string> arguments;
  // What the subcommand that was chosen does, and its options' values.
  std::function<absl::Status()> action;
  std::function<std::map<std::string, std::string>()> values;

  // Makes `its_action` the action when `command` is chosen.
  void SetActionOf(const Command& command, std::function<absl::Status()> its_action) {
    command.OnChosen([this, command, its_action = std::move(its_action)] {
      action = its_action;
      values = [command] { return command.Values(); };
    });
  }

  // Tables and the like for people.
  void Print(const std::string& text) const {
    streams.out << (ColoursAreWanted(streams.out_is_terminal) ? WithColours(text) : text) << std::flush;
  }

  // Where remarks that are not the answer go; swallowed by --quiet.
  void Note(const std::string& line) const {
    if (!quiet) streams.err << line << std::endl;
  }
};

// Prints a message as readable JSON.
absl::Status PrintJson(const Tool& tool, const google::protobuf::Message& message);

// Each adds its subcommand to `app`; `tool` must outlive it.
void AddGenerateCommand(Command app, Tool& tool);
void AddTokenizeCommand(Command app, Tool& tool);
void AddCacheCommand(Command app, Tool& tool);
void AddPatchCommand(Command app, Tool& tool);
void AddAttributeCommand(Command app, Tool& tool);
void AddLensCommand(Command app, Tool& tool);
void AddDlaCommand(Command app, Tool& tool);
void AddModelCommand(Command app, Tool& tool);
void AddHooksCommand(Command app, Tool& tool);
void AddBaselineCommand(Command app, Tool& tool);
void AddPatchingCommand(Command app, Tool& tool);
void AddAblationCommand(Command app, Tool& tool);
void AddCompareCommand(Command app, Tool& tool);
void AddCircuitCommand(Command app, Tool& tool);
void AddDirectionCommand(Command app, Tool& tool);
void AddStudyCommand(Command app, Tool& tool);
void AddReportCommand(Command app, Tool& tool);
void AddImportCommand(Command app, Tool& tool);
void AddDoctorCommand(Command app, Tool& tool);
void AddTokenCommand(Command app, Tool& tool);
void AddCompletionCommand(Command app, Tool& tool);

}  // namespace mechinterp

#endif  // CLIENTS_COMMANDS_TOOL_H_
