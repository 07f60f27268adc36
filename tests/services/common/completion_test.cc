// Manual pages and completions of a small program.

#include "services/common/completion.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/manual_page.h"

namespace mechinterp {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

OptionDescription Flag(std::vector<std::string> names, std::string help) {
  OptionDescription option;
  option.names = std::move(names);
  option.help = std::move(help);
  return option;
}

OptionDescription Valued(std::vector<std::string> names, std::string help) {
  OptionDescription option = Flag(std::move(names), std::move(help));
  option.takes_value = true;
  return option;
}

CommandDescription Command(std::string name, std::string description) {
  CommandDescription command;
  command.name = std::move(name);
  command.description = std::move(description);
  return command;
}

CommandDescription Program() {
  OptionDescription edit = Valued({"--edit"}, "The edit [one]");
  edit.value = "TEXT:{zero,mean}=zero";
  edit.choices = {"zero", "mean"};
  edit.environment = "ABSTRACT_EDIT";
  OptionDescription prompt = Valued({"prompt"}, "Text");
  prompt.is_positional = true;
  CommandDescription program = Command("tool", "does things");
  program.footer = ".dots and \\slashes";
  program.options = {Flag({"--quiet", "-q"}, "It's quiet")};
  program.subcommands = {Command("patch", "Patch: one run"), Command("model", "Show the model")};
  OptionDescription part = Valued({"part"}, "What of it");
  part.is_positional = true;
  part.choices = {"weights", "tokenizer"};
  program.subcommands[1].options = {part};
  program.subcommands[0].options = {edit, Valued({"--output", "-o"}, "A file"), prompt};
  return program;
}

// The output of a shell that has read the script of its kind and then runs `commands`. The word
// "skipped" where there is no such shell.
std::string RunIn(const std::string& shell, Shell kind, const std::string& commands) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", shell, "-completion_test");
  std::ofstream(path) << CompletionScript(kind, Program()) << commands;
  FILE* pipe = popen(absl::StrCat("command -v ", shell, " >/dev/null || { echo skipped; exit; }; ", shell,
                                  " ", path, " 2>&1")
                         .c_str(),
                     "r");
  std::string output;
  for (int c = fgetc(pipe); c != EOF; c = fgetc(pipe)) output += static_cast<char>(c);
  pclose(pipe);
  std::filesystem::remove(path);
  return output;
}

// What bash offers for the last of the words.
std::string BashOffers(const std::string& words) {
  return RunIn("bash", Shell::kBash,
               absl::StrCat("COMP_WORDS=(", words, "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _tool\n",
                            "echo \"${COMPREPLY[*]}\"\n"));
}

TEST(BashCompletion, OffersCommandsOptionsAndChoices) {
  if (BashOffers("tool ''") == "skipped\n") GTEST_SKIP() << "no bash";
  EXPECT_EQ(BashOffers("tool ''"), "patch model\n");
  EXPECT_EQ(BashOffers("tool mo"), "model\n");
  EXPECT_EQ(BashOffers("tool patch --o"), "--output\n");
  EXPECT_EQ(BashOffers("tool patch -"), "--edit --output -o --quiet -q\n");
  EXPECT_EQ(BashOffers("tool model -"), "--quiet -q\n");
  EXPECT_EQ(BashOffers("tool -q patch --edit ''"), "zero mean\n");
  EXPECT_EQ(BashOffers("tool patch --edit z"), "zero\n");
  EXPECT_EQ(BashOffers("tool model ''"), "weights tokenizer\n");
  EXPECT_EQ(BashOffers("tool patch -o ''"), "\n");  // files, by -o default
}

TEST(ZshCompletion, IsReadByZsh) {
  const std::string output = RunIn("zsh", Shell::kZsh, "echo ${+functions[_tool]}\n");
  if (output == "skipped\n") GTEST_SKIP() << "no zsh";
  EXPECT_THAT(output, HasSubstr("1\n"));
}

TEST(ZshCompletion, NamesCommandsOptionsAndChoices) {
  const std::string script = CompletionScript(Shell::kZsh, Program());
  EXPECT_THAT(script, HasSubstr("#compdef tool\n"));
  EXPECT_THAT(script, HasSubstr("'patch:Patch\\: one run'"));
  EXPECT_THAT(script, HasSubstr("'*--edit[The edit \\[one\\]]:value:(zero mean)'"));
  EXPECT_THAT(script, HasSubstr("'*--quiet[It'\\''s quiet]'"));
  EXPECT_THAT(script, HasSubstr("'*:argument:(weights tokenizer)'"));
}

TEST(FishCompletion, OffersWhatFishFinds) {
  const std::string output =
      RunIn("fish", Shell::kFish,
            "complete -C 'tool patch --edit '\ncomplete -C 'tool mo'\ncomplete -C 'tool model w'\n");
  if (output == "skipped\n") GTEST_SKIP() << "no fish";
  EXPECT_EQ(output, "mean\tThe edit [one]\nzero\tThe edit [one]\nmodel\tShow the model\nweights\n");
}

TEST(FishCompletion, NamesCommandsOptionsAndChoices) {
  const std::string script = CompletionScript(Shell::kFish, Program());
  EXPECT_THAT(script, HasSubstr("-a model -d 'Show the model'\n"));
  EXPECT_THAT(
      script,
      HasSubstr("complete -c tool -n '__fish_seen_subcommand_from patch' -l edit -x -a 'zero mean' -d"));
  EXPECT_THAT(script, HasSubstr("complete -c tool -l quiet -s q -d 'It'\\''s quiet'\n"));
}

TEST(ManualPage, HasEveryCommandAndOption) {
  const std::string page = ManualPage(Program(), "tool 1.2");
  EXPECT_THAT(page, ::testing::StartsWith(
                        ".TH TOOL 1 \"\" \"tool 1.2\" \"User Commands\"\n.SH NAME\ntool \\- does things\n"));
  EXPECT_THAT(page, HasSubstr("\n.TP\n\\fB\\-\\-quiet\\fR, \\fB\\-q\\fR\nIt's quiet\n"));
  EXPECT_THAT(page, HasSubstr("\n.SS \\fBpatch\\fR [OPTIONS] [prompt]\nPatch: one run\n"));
  EXPECT_THAT(page, HasSubstr("\\fB\\-\\-edit\\fR \\fITEXT:{zero,mean}=zero\\fR\nThe edit [one]\n"));
  EXPECT_THAT(page, HasSubstr("Environment: \\fBABSTRACT_EDIT\\fR\n"));
}

TEST(ManualPage, EscapesWhatRoffWouldObey) {
  const std::string page = ManualPage(Program(), "tool 1.2");
  EXPECT_THAT(page, HasSubstr("\n\\&.dots and \\eslashes\n"));
  EXPECT_THAT(page, Not(ContainsRegex("\n\\.dots")));
}

}  // namespace
}  // namespace mechinterp
