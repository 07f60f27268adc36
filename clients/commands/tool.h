#ifndef CLIENTS_COMMANDS_TOOL_H_
#define CLIENTS_COMMANDS_TOOL_H_

#include <functional>
#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace mechinterp {

// What the tool reads from and writes to. Tests give their own.
struct ToolStreams {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  // Whether `err` is a terminal, on which progress can be drawn.
  bool err_is_terminal = false;
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
  double timeout_seconds = 600;
  int max_attempts = 6;
  std::string metrics_address;
  // Option of `compare`; here for the hint about servers that do not answer.
  std::string other_server;
  bool quiet = false;
  // The command line without the program.
  std::vector<std::string> arguments;
  // Set by the subcommand that was chosen.
  std::function<absl::Status()> action;

  // Where remarks that are not the answer go; swallowed by --quiet.
  void Note(const std::string& line) const {
    if (!quiet) streams.err << line << std::endl;
  }
};

// Prints a message as readable JSON.
absl::Status PrintJson(const Tool& tool, const google::protobuf::Message& message);

// Each adds its subcommand to `app`; `tool` must outlive it.
void AddGenerateCommand(CLI::App& app, Tool& tool);
void AddTokenizeCommand(CLI::App& app, Tool& tool);
void AddCacheCommand(CLI::App& app, Tool& tool);
void AddPatchCommand(CLI::App& app, Tool& tool);
void AddModelCommand(CLI::App& app, Tool& tool);
void AddHooksCommand(CLI::App& app, Tool& tool);
void AddBaselineCommand(CLI::App& app, Tool& tool);
void AddPatchingCommand(CLI::App& app, Tool& tool);
void AddAblationCommand(CLI::App& app, Tool& tool);
void AddCompareCommand(CLI::App& app, Tool& tool);
void AddImportCommand(CLI::App& app, Tool& tool);
void AddDoctorCommand(CLI::App& app, Tool& tool);

}  // namespace mechinterp

#endif  // CLIENTS_COMMANDS_TOOL_H_
