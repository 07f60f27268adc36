// A configuration in YAML, read by a command line with an option of each kind.

#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "services/common/command_line.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp {
namespace {

using fuzz::Require;

struct Values {
  std::string text = "as it was";
  int number = 1;
  unsigned long long bytes = 0;
  double share = 0.5;
  std::optional<int> maybe;
  std::vector<std::string> list;
  std::vector<int> numbers;
  bool flag = false;
  int choice = 0;
};

}  // namespace
}  // namespace mechinterp

ABSTRACT_FUZZ_TARGET(config_file) {
  using namespace mechinterp;
  const std::string path = fuzz::ScratchFile("config.yaml", input);
  Values values;
  CommandLine line("A program.", "program");
  const Command root = line.root();
  root.AddOption("--text", values.text, "A text");
  root.AddOption("--number", values.number, "A number").InRange(0, 9);
  root.AddOption("--bytes", values.bytes, "Bytes").ByteSuffixes(ByteUnits::kKiloIs1024);
  root.AddOption("--share", values.share, "A share").InRange(0.0, 1.0);
  root.AddOption("--maybe", values.maybe, "Perhaps a number");
  root.AddOption("--list", values.list, "Texts").SplitAt(',');
  root.AddOption("--numbers", values.numbers, "Numbers");
  root.AddFlag("--flag", values.flag, "A flag");
  root.AddChoice<int>("--choice", values.choice, {{"none", 0}, {"some", 1}}, "A choice");
  root.AddSubcommand("run", "Runs").AddOption("--depth", values.number, "A number").Positive();
  line.UseEnvironmentAndConfig("FUZZ", "section");
  std::ostringstream out, err;
  const char* const arguments[] = {"program", "--config", path.c_str()};
  const std::optional<int> code = line.Parse(3, arguments, out, err);
  fuzz::Require(out.str().empty(), "a file asks for no help");
  if (code) {
    fuzz::Require(*code != 0 && !err.str().empty(), "a fault is told");
    fuzz::Require(err.str().size() <= 4 * input.size() + 2000, "a fault is told in short");
    return;
  }
  fuzz::Require(err.str().empty(), "what is taken is not complained of");
  fuzz::Require(values.number >= 0 && values.number <= 9, "a number is in its range");
  fuzz::Require(values.share >= 0 && values.share <= 1, "a share is in its range");
  fuzz::Require(values.choice == 0 || values.choice == 1, "a choice is one of those there are");
}
