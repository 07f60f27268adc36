#ifndef SERVICES_COMMON_COMMAND_LINE_H_
#define SERVICES_COMMON_COMMAND_LINE_H_

#include <concepts>
#include <functional>
#include <iosfwd>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/common/command_description.h"

// The command line of every program of the project: options with their checks,
// subcommands, help, environment variables and a YAML file. By CLI11, whose header
// takes longer to compile than most of our files: command_line.cc alone includes it.
namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace mechinterp {

template <typename T, typename... Types>
concept IsOneOf = (std::same_as<T, Types> || ...);

// What an option's value may be stored in.
template <typename T>
concept OptionValue =
    IsOneOf<T, std::string, int, unsigned, long, long long, unsigned long, unsigned long long, float, double,
            std::optional<int>, std::vector<std::string>, std::vector<int>>;

enum class ByteUnits { kKiloIs1000, kKiloIs1024 };  // What "KB" means; "KiB" is always 1024.

// One declared option: a handle, valid as long as its CommandLine. Functions that
// return it refine the declaration, in any order before parsing.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option Required() const;
  // Checks of every value; --help shows them.
  Option OneOf(const std::vector<std::string>& choices) const;
  Option InRange(int smallest, int largest) const;
  Option InRange(double smallest, double largest) const;
  Option Positive() const;
  Option NonNegative() const;
  Option NotEmpty() const;
  Option ExistingDirectory() const;
  // A number of bytes that may have a suffix, as in 6GB.
  Option ByteSuffixes(ByteUnits units) const;
  // For a list: one argument may hold several values.
  Option SplitAt(char delimiter) const;
  // For a list: each time it is given the option takes one value. Otherwise it takes
  // all arguments up to the next option.
  Option OneValueEachTime() const;
  Option Excludes(Option other) const;
  // The environment variable, instead of the one made of the option's name.
  Option Environment(const std::string& variable) const;
  // What --help shows as the default, instead of the value; "": nothing.
  Option DefaultText(const std::string& text) const;

  // After parsing: whether a value came from the command line, the environment or the file.
  bool given() const;

 private:
  CLI::Option* option_;
};

// The options and subcommands of a program, or of one of its subcommands: a handle,
// valid as long as its CommandLine.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  // `names` are "--name", "--name,-n" or, for a positional argument, "name". The value
  // that `value` has now is the default, shown by --help unless it is empty; `value`
  // must outlive the parsing.
  template <OptionValue T>
  Option AddOption(const std::string& names, T& value, const std::string& help) const;
  Option AddFlag(const std::string& names, bool& value, const std::string& help) const;
  // For values of other types: parsing calls `store` with the text, when the checks have passed.
  Option AddOption(const std::string& names, std::function<void(const std::string&)> store,
                   const std::string& help) const;
  // One of named values.
  template <typename T>
  Option AddChoice(const std::string& names, T& value, const std::vector<std::pair<std::string, T>>& choices,
                   const std::string& help) const;

  Command AddSubcommand(const std::string& name, const std::string& description) const;
  // Called by parsing when this subcommand is on the command line.
  void OnChosen(std::function<void()> callback) const;
  // After parsing: every option's value, or else its default, by its long name.
  std::map<std::string, std::string> Values() const;
  // Text below the options in --help.
  void SetFooter(const std::string& text) const;
  std::vector<Command> Subcommands() const;

 private:
  CLI::App* app_;
};

// The command line of one program. Not thread-safe.
class CommandLine {
 public:
  // Without a name the help takes the program's path.
  explicit CommandLine(const std::string& description, const std::string& name = "");
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  Command root() const;
  // Adds --version, which prints `text`, and a hidden --manual-page, which prints the
  // program's manual page in roff.
  void SetVersion(const std::string& text);
  // A subcommand must be given; the program's own options may also follow it.
  void RequireSubcommand();

  // Each option with a long name, of subcommands too, gets an environment variable
  // (`--listen-address` in section "MODEL": ABSTRACT_MODEL_LISTEN_ADDRESS; in section "":
  // ABSTRACT_LISTEN_ADDRESS), and `--config FILE` reads a YAML file whose top-level map
  // `yaml_section` holds options by their long names with '_' or '-'. Command line beats
  // environment beats file beats default. A file that cannot be read, or that names an
  // option which does not exist, is an error of the command line.
  void UseEnvironmentAndConfig(const std::string& environment_section, const std::string& yaml_section);

  // Stores the values of main's arguments. Nothing: go on. Otherwise the program's exit
  // code: 0 after printing help or the version to `out`, not 0 after an error to `err`, which
  // says what an unknown command or option may have meant.
  // Call once, after all declarations.
  std::optional<int> Parse(int argc, const char* const* argv, std::ostream& out, std::ostream& err);
  // The same with the standard output and error.
  std::optional<int> Parse(int argc, const char* const* argv);

  // All that was declared; environment variables and --config once Parse was called.
  CommandDescription Describe() const;

 private:
  std::unique_ptr<CLI::App> app_;
  std::optional<std::pair<std::string, std::string>> environment_and_yaml_sections_;
};

template <typename T>
Option Command::AddChoice(const std::string& names, T& value,
                          const std::vector<std::pair<std::string, T>>& choices,
                          const std::string& help) const {
  std::vector<std::string> texts;
  std::string default_text;
  for (const auto& [text, choice] : choices) {
    texts.push_back(text);
    if (choice == value) default_text = text;
  }
  const auto store = [choices, &value](const std::string& given) {
    for (const auto& [text, choice] : choices) {
      if (text == given) value = choice;
    }
  };
  return AddOption(names, std::function<void(const std::string&)>(store), help)
      .OneOf(texts)
      .DefaultText(default_text);
}

}  // namespace mechinterp

#endif  // SERVICES_COMMON_COMMAND_LINE_H_
