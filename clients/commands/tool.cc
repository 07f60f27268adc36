#include "clients/commands/tool.h"

#include "absl/strings/str_cat.h"
#include "services/common/command_line.h"
#include "services/common/proto_json.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/version.h"

namespace mechinterp {
namespace {

constexpr char kDescription[] =
    "Studies why a language model refuses: generates, reads activations, patches and ablates, as a client of "
    "the "
    "Abstract model service.";
constexpr char kFooter[] =
    "Every option has an environment variable (--output-dir: ABSTRACT_OUTPUT_DIR) and a key in a --config "
    "file: "
    "under \"client\", a command's under \"client\" and the command's name. `abstract COMMAND --help` lists "
    "a "
    "command's options.";
constexpr char kCommandFooter[] =
    "Options of every command, `abstract --help`: --server, --tls, --tls-ca, --token-file, --timeout, "
    "--max-attempts, --metrics-address, "
    "--quiet, "
    "--json, --config.";

void AddCommonOptions(Command app, Tool& tool) {
  app.AddOption("--server", tool.server, "Address of the model service");
  app.AddFlag("--tls", tool.connection.tls.enabled, "Speak TLS, and trust the system's authorities");
  app.AddOption("--tls-ca", tool.connection.tls.ca,
                "Certificates in PEM of who vouches for the server; speaks TLS");
  app.AddOption("--tls-certificate", tool.connection.tls.certificate,
                "A certificate in PEM to show to servers that want one");
  app.AddOption("--tls-key", tool.connection.tls.key, "Its private key in PEM");
  app.AddOption("--token-file", tool.connection.token_file,
                "File with the token to call with, where the server wants one");
  app.AddFlag("--insecure", tool.connection.insecure, "Send the token to other machines without TLS");
  app.AddOption("--timeout", tool.timeout_seconds,
                "Timeout in seconds of a call, or of the next message of a stream")
      .Positive();
  app.AddOption("--max-attempts", tool.max_attempts, "Attempts to reach an unavailable server")
      .InRange(1, 1000);
  app.AddOption("--metrics-address", tool.metrics_address,
                "Serve the client's Prometheus metrics at this address while it runs, as in 127.0.0.1:9466");
  app.AddFlag("--quiet,-q", tool.quiet, "Print no progress and no notes");
  app.AddFlag("--json", tool.json, "Print the result as one JSON document, and nothing else to the output");
}

void AddCommands(Command app, Tool& tool) {
  AddGenerateCommand(app, tool);
  AddTokenizeCommand(app, tool);
  AddCacheCommand(app, tool);
  AddPatchCommand(app, tool);
  AddAttributeCommand(app, tool);
  AddLensCommand(app, tool);
  AddDlaCommand(app, tool);
  AddModelCommand(app, tool);
  AddHooksCommand(app, tool);
  AddStudyCommand(app, tool);
  AddBaselineCommand(app, tool);
  AddPatchingCommand(app, tool);
  AddAblationCommand(app, tool);
  AddCircuitCommand(app, tool);
  AddDirectionCommand(app, tool);
  AddCompareCommand(app, tool);
  AddReportCommand(app, tool);
  AddImportCommand(app, tool);
  AddDoctorCommand(app, tool);
  AddTokenCommand(app, tool);
  AddCompletionCommand(app, tool);
  for (const Command& command : app.Subcommands()) command.SetFooter(kCommandFooter);
}

// What to do about an error, where that can be said.
std::string HintFor(const absl::Status& status, const Tool& tool) {
  if (absl::IsUnavailable(status) && !tool.analysis_server.empty()) {
    return absl::StrCat(
        "hint: is the analysis service running? `abstract-analysis-server --help` tells how to start it; "
        "--analysis-server is ",
        tool.analysis_server);
  }
  if (absl::IsUnavailable(status)) {
    return absl::StrCat(
        "hint: is the server running? `abstract-model-server --help` tells how to start one; --server is ",
        tool.server, tool.other_server.empty() ? "" : ", --other-server is ", tool.other_server);
  }
  if (absl::IsUnauthenticated(status)) {
    return tool.connection.token_file.empty()
               ? "hint: --token-file names a file with your token; `abstract token create` makes one on the "
                 "server"
               : absl::StrCat("hint: the token comes from ", tool.connection.token_file);
  }
  if (absl::IsDeadlineExceeded(status)) {
    return absl::StrCat("hint: --timeout is ", tool.timeout_seconds, " seconds");
  }
  return "";
}

}  // namespace

absl::Status PrintJson(const Tool& tool, const google::protobuf::Message& message) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string json, MessageToJson(message, JsonStyle::kReadable));
  tool.streams.out << json << std::endl;
  return absl::OkStatus();
}

int RunTool(int argc, const char* const* argv, const ToolStreams& streams) {
  Tool tool(streams);
  tool.arguments.assign(argv + (argc > 0 ? 1 : 0), argv + argc);
  CommandLine command_line(kDescription, "abstract");
  command_line.root().SetFooter(kFooter);
  command_line.RequireSubcommand();
  command_line.SetVersion(absl::StrCat("abstract ", kVersion));
  AddCommonOptions(command_line.root(), tool);
  AddCommands(command_line.root(), tool);
  tool.describe = [&command_line] { return command_line.Describe(); };
  command_line.UseEnvironmentAndConfig("", "client");
  if (const auto exit_code = command_line.Parse(argc, argv, streams.out, streams.err)) {
    return *exit_code == 0 ? 0 : 2;
  }
  ClientTlsOptions& tls = tool.connection.tls;
  tls.enabled = tls.enabled || !tls.ca.empty() || !tls.certificate.empty();
  const absl::Status status = tool.action();
  if (status.ok()) return 0;
  const auto styled = [&](const std::string& text, TextStyle style) {
    return ColoursAreWanted(streams.err_is_terminal) ? Styled(text, style) : text;
  };
  streams.err << styled("abstract:", TextStyle::kRed) << " " << DescribeStatus(status) << std::endl;
  if (const std::string hint = HintFor(status, tool); !hint.empty()) {
    streams.err << styled(hint, TextStyle::kYellow) << std::endl;
  }
  return 1;
}

}  // namespace mechinterp
