#include <memory>
#include <string>

#include "clients/commands/tool.h"
#include "services/common/completion.h"

namespace mechinterp {

void AddCompletionCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "completion",
      "Print a script that makes a shell complete commands, as in source <(abstract completion bash)");
  const auto shell = std::make_shared<Shell>(Shell::kBash);
  command
      .AddChoice("shell", *shell, {{"bash", Shell::kBash}, {"zsh", Shell::kZsh}, {"fish", Shell::kFish}},
                 "bash, zsh or fish")
      .Required();
  tool.SetActionOf(command, [&tool, shell] {
    tool.streams.out << CompletionScript(*shell, tool.describe()) << std::flush;
    return absl::OkStatus();
  });
}

}  // namespace mechinterp
