#include "services/common/completion.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace mechinterp {
namespace {

// In single quotes, for any of the shells.
std::string Quoted(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

std::string FunctionName(const CommandDescription& program) {
  return absl::StrCat("_", absl::StrReplaceAll(program.name, {{"-", "_"}}));
}

std::vector<std::string> SubcommandNames(const CommandDescription& program) {
  std::vector<std::string> names;
  for (const CommandDescription& command : program.subcommands) names.push_back(command.name);
  return names;
}

// Every option that has a name, with its command's: "" for the program's own.
template <typename Visit>
void ForEachOption(const CommandDescription& program, const Visit& visit) {
  const auto visit_all = [&](const std::string& command, const CommandDescription& owner) {
    for (const OptionDescription& option : owner.options) {
      if (!option.is_positional) visit(command, option);
    }
  };
  visit_all("", program);
  for (const CommandDescription& command : program.subcommands) visit_all(command.name, command);
}

// The named values of a command's positional arguments; empty where any text may stand.
std::vector<std::string> PositionalChoices(const CommandDescription& command) {
  std::vector<std::string> choices;
  for (const OptionDescription& option : command.options) {
    if (option.is_positional) choices.insert(choices.end(), option.choices.begin(), option.choices.end());
  }
  return choices;
}

// ---------------------------------------------------------------- bash

std::string OptionWords(const CommandDescription& command) {
  std::vector<std::string> words;
  for (const OptionDescription& option : command.options) {
    if (!option.is_positional) words.insert(words.end(), option.names.begin(), option.names.end());
  }
  return absl::StrJoin(words, " ");
}

// Cases of "COMMAND OPTION" before the word: what may follow.
std::string BashValues(const CommandDescription& program) {
  std::string cases;
  ForEachOption(program, [&](const std::string& command, const OptionDescription& option) {
    if (!option.takes_value) return;
    const std::string any_command = command.empty() ? "*" : command;
    const std::string patterns = absl::StrJoin(option.names, "|", [&](std::string* out, const auto& name) {
      absl::StrAppend(out, any_command, "' '", name);
    });
    const std::string reply =
        option.choices.empty()
            ? "return"  // what -o default does: files
            : absl::StrCat("COMPREPLY=($(compgen -W ", Quoted(absl::StrJoin(option.choices, " ")),
                           " -- \"$word\")); return");
    absl::StrAppend(&cases, "    ", patterns, ") ", reply, " ;;\n");
  });
  return cases;
}

std::string BashScript(const CommandDescription& program) {
  const std::string function = FunctionName(program);
  const std::string commands = absl::StrJoin(SubcommandNames(program), "|");
  std::string script = absl::StrCat("# Completion of ", program.name, " for bash.\n", function,
                                    "() {\n"
                                    "  local word=\"${COMP_WORDS[COMP_CWORD]}\" "
                                    "previous=\"${COMP_WORDS[COMP_CWORD - 1]}\" command='' words='' i\n"
                                    "  for ((i = 1; i < COMP_CWORD; ++i)); do\n"
                                    "    case \"${COMP_WORDS[i]}\" in\n");
  if (!commands.empty())
    absl::StrAppend(&script, "      ", commands, ") command=\"${COMP_WORDS[i]}\"; break ;;\n");
  absl::StrAppend(&script, "    esac\n  done\n  COMPREPLY=()\n  case \"$command $previous\" in\n",
                  BashValues(program), "  esac\n  case \"$command\" in\n    '') words=",
                  Quoted(absl::StrJoin(SubcommandNames(program), " ")), " ;;\n");
  for (const CommandDescription& command : program.subcommands) {
    const std::vector<std::string> choices = PositionalChoices(command);
    if (!choices.empty()) {
      absl::StrAppend(&script, "    ", command.name, ") words=", Quoted(absl::StrJoin(choices, " ")),
                      " ;;\n");
    }
  }
  absl::StrAppend(&script, "  esac\n  if [[ \"$word\" == -* ]]; then\n    case \"$command\" in\n");
  for (const CommandDescription& command : program.subcommands) {
    absl::StrAppend(&script, "      ", command.name, ") words=", Quoted(OptionWords(command)), " ;;\n");
  }
  absl::StrAppend(&script, "    esac\n    words+=' '", Quoted(OptionWords(program)),
                  "\n  fi\n  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\ncomplete -o default -F ",
                  function, " ", program.name, "\n");
  return script;
}

// ---------------------------------------------------------------- zsh

std::string ZshValue(const std::vector<std::string>& choices) {
  return choices.empty() ? "_files" : absl::StrCat("(", absl::StrJoin(choices, " "), ")");
}

// '*--quiet[help]' '*-q[help]', as _arguments takes it.
std::string ZshOption(const OptionDescription& option) {
  const std::string help =
      absl::StrReplaceAll(option.help, {{"\\", "\\\\"}, {"[", "\\["}, {"]", "\\]"}, {":", "\\:"}});
  const std::string value = option.takes_value ? absl::StrCat(":value:", ZshValue(option.choices)) : "";
  std::vector<std::string> specifications;
  for (const std::string& name : option.names) {
    specifications.push_back(Quoted(absl::StrCat("*", name, "[", help, "]", value)));
  }
  return absl::StrJoin(specifications, " ");
}

std::string ZshOptions(const CommandDescription& command) {
  std::string options;
  for (const OptionDescription& option : command.options) {
    absl::StrAppend(&options, " \\\n      ",
                    option.is_positional ? Quoted(absl::StrCat("*:argument:", ZshValue(option.choices)))
                                         : ZshOption(option));
  }
  return options;
}

std::string ZshScript(const CommandDescription& program) {
  const std::string function = FunctionName(program);
  std::string script =
      absl::StrCat("#compdef ", program.name, "\n# Completion of ", program.name, " for zsh.\n", function,
                   "() {\n  local state line\n  local -a commands=(\n");
  for (const CommandDescription& command : program.subcommands) {
    const std::string description = absl::StrReplaceAll(command.description, {{":", "\\:"}});
    absl::StrAppend(&script, "    ", Quoted(absl::StrCat(command.name, ":", description)), "\n");
  }
  absl::StrAppend(&script, "  )\n  _arguments -C", ZshOptions(program));
  if (!program.subcommands.empty()) {
    absl::StrAppend(&script, " \\\n      '1:command:->command' '*::argument:->arguments'");
  }
  script +=
      "\n  case \"$state\" in\n    command) _describe command commands ;;\n    arguments) case \"$line[1]\" "
      "in\n";
  for (const CommandDescription& command : program.subcommands) {
    CommandDescription whole = command;  // the program's own options may follow
    for (const OptionDescription& option : program.options) {
      if (!option.is_positional && !absl::StrContains(OptionWords(command), option.names[0])) {
        whole.options.push_back(option);
      }
    }
    absl::StrAppend(&script, "    ", command.name, ") _arguments", ZshOptions(whole), " ;;\n");
  }
  absl::StrAppend(&script, "    esac ;;\n  esac\n}\nif [[ \"$funcstack[1]\" == ", function, " ]]; then\n  ",
                  function, " \"$@\"\nelse\n  compdef ", function, " ", program.name, "\nfi\n");
  return script;
}

// ---------------------------------------------------------------- fish

std::string FishOption(const std::string& program, const std::string& command,
                       const OptionDescription& option) {
  std::string line = absl::StrCat("complete -c ", program);
  if (!command.empty()) absl::StrAppend(&line, " -n '__fish_seen_subcommand_from ", command, "'");
  for (const std::string& name : option.names) {
    const bool is_long = absl::StartsWith(name, "--");
    absl::StrAppend(&line, is_long ? " -l " : " -s ", absl::StripPrefix(name, is_long ? "--" : "-"));
  }
  if (option.takes_value) {
    absl::StrAppend(&line, option.choices.empty()
                               ? " -r -F"
                               : absl::StrCat(" -x -a ", Quoted(absl::StrJoin(option.choices, " "))));
  }
  return absl::StrCat(line, " -d ", Quoted(option.help), "\n");
}

std::string FishScript(const CommandDescription& program) {
  std::string script = absl::StrCat("# Completion of ", program.name, " for fish.\n");
  for (const CommandDescription& command : program.subcommands) {
    absl::StrAppend(&script, "complete -c ", program.name, " -f -n __fish_use_subcommand -a ", command.name,
                    " -d ", Quoted(command.description), "\n");
    const std::vector<std::string> choices = PositionalChoices(command);
    if (choices.empty()) continue;
    absl::StrAppend(&script, "complete -c ", program.name, " -f -n '__fish_seen_subcommand_from ",
                    command.name, "' -a ", Quoted(absl::StrJoin(choices, " ")), "\n");
  }
  ForEachOption(program, [&](const std::string& command, const OptionDescription& option) {
    script += FishOption(program.name, command, option);
  });
  return script;
}

}  // namespace

std::string CompletionScript(Shell shell, const CommandDescription& program) {
  switch (shell) {
    case Shell::kBash:
      return BashScript(program);
    case Shell::kZsh:
      return ZshScript(program);
    case Shell::kFish:
      return FishScript(program);
  }
  return "";
}

}  // namespace mechinterp
