#include "services/common/manual_page.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace mechinterp {
namespace {

// Text that roff prints as it is: a hyphen stays one, and no line begins a request.
std::string Escaped(const std::string& text) {
  std::string escaped = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}, {"\n", " "}});
  if (!escaped.empty() && (escaped[0] == '.' || escaped[0] == '\'')) escaped.insert(0, "\\&");
  return escaped;
}

std::string Bold(const std::string& text) { return absl::StrCat("\\fB", Escaped(text), "\\fR"); }

std::string OptionEntry(const OptionDescription& option) {
  const std::string names = absl::StrJoin(
      option.names, ", ", [](std::string* out, const std::string& name) { *out += Bold(name); });
  std::string entry = absl::StrCat(".TP\n", names);
  if (!option.value.empty()) absl::StrAppend(&entry, " \\fI", Escaped(option.value), "\\fR");
  absl::StrAppend(&entry, "\n", Escaped(option.help), option.is_required ? " Required." : "", "\n");
  if (!option.environment.empty())
    absl::StrAppend(&entry, ".br\nEnvironment: ", Bold(option.environment), "\n");
  return entry;
}

std::string OptionEntries(const CommandDescription& command) {
  return absl::StrJoin(command.options, "", [](std::string* out, const OptionDescription& option) {
    *out += OptionEntry(option);
  });
}

// "[OPTIONS] [COMMAND] [prompt...]"
std::string Synopsis(const CommandDescription& command) {
  std::string synopsis = absl::StrCat(Bold(command.name), " [OPTIONS]");
  for (const OptionDescription& option : command.options) {
    if (option.is_positional) absl::StrAppend(&synopsis, " [", Escaped(option.names[0]), "]");
  }
  if (!command.subcommands.empty()) absl::StrAppend(&synopsis, " COMMAND [OPTIONS]");
  return synopsis;
}

}  // namespace

std::string ManualPage(const CommandDescription& program, const std::string& version) {
  std::string page =
      absl::StrCat(".TH ", absl::AsciiStrToUpper(Escaped(program.name)), " 1 \"\" \"", Escaped(version),
                   "\" \"User Commands\"\n.SH NAME\n", Escaped(program.name), " \\- ",
                   Escaped(program.description), "\n.SH SYNOPSIS\n", Synopsis(program), "\n");
  if (!program.footer.empty()) absl::StrAppend(&page, ".SH DESCRIPTION\n", Escaped(program.footer), "\n");
  absl::StrAppend(&page, ".SH OPTIONS\n", OptionEntries(program));
  if (!program.subcommands.empty()) page += ".SH COMMANDS\n";
  for (const CommandDescription& command : program.subcommands) {
    absl::StrAppend(&page, ".SS ", Synopsis(command), "\n", Escaped(command.description), "\n",
                    OptionEntries(command));
  }
  return page;
}

}  // namespace mechinterp
