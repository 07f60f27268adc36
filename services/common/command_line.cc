#include "services/common/command_line.h"

#include <cstdlib>
#include <iostream>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "services/common/manual_page.h"
#include "services/common/suggestion.h"
#include "services/common/text_file.h"
#include "yaml-cpp/yaml.h"

namespace mechinterp {
namespace {

std::vector<CLI::App*> SubcommandsOf(const CLI::App& app) {
  // The overload without a filter lists only those on the command line.
  return const_cast<CLI::App&>(app).get_subcommands([](CLI::App*) { return true; });
}

bool IsHidden(const CLI::Option& option) { return option.get_group().empty(); }

bool IsSetInEnvironment(const CLI::Option& option) {
  const std::string name = option.get_envname();
  const char* value = name.empty() ? nullptr : std::getenv(name.c_str());
  return value != nullptr && *value != '\0';
}

std::string EnvironmentName(absl::string_view section, absl::string_view long_name) {
  const std::string name = section.empty() ? absl::StrCat("ABSTRACT_", long_name)
                                           : absl::StrCat("ABSTRACT_", section, "_", long_name);
  return absl::AsciiStrToUpper(absl::StrReplaceAll(name, {{"-", "_"}}));
}

void AddEnvironmentTwins(CLI::App& app, absl::string_view section) {
  for (CLI::Option* option : app.get_options()) {
    if (option == app.get_help_ptr() || option == app.get_version_ptr() || IsHidden(*option) ||
        option->get_lnames().empty() || !option->get_envname().empty()) {
      continue;
    }
    option->envname(EnvironmentName(section, option->get_lnames().front()));
  }
  for (CLI::App* subcommand : SubcommandsOf(app)) AddEnvironmentTwins(*subcommand, section);
}

// Reads one section of a YAML file for CLI11. Errors are FileErrors, which CLI11
// holds back until `--help` and `--version` were answered.
class YamlConfig : public CLI::Config {
 public:
  YamlConfig(const CLI::App* app, std::string section) : app_(app), section_(std::move(section)) {}

  std::string to_config(const CLI::App*, bool, bool, std::string) const override {
    throw CLI::FileError("writing configuration files is not supported");
  }

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    try {
      const YAML::Node document = YAML::Load(input);
      std::vector<CLI::ConfigItem> items;
      const YAML::Node options = Section(document);
      if (!options.IsNull()) ReadOptions(options, *app_, section_, {}, items);
      return items;
    } catch (const YAML::Exception& error) {
      throw CLI::FileError(absl::StrCat(FileName(), ": ", error.what()));
    }
  }

 private:
  std::string FileName() const { return app_->get_config_ptr()->as<std::string>(); }

  [[noreturn]] void Fail(const YAML::Node& node, absl::string_view problem) const {
    const YAML::Mark mark = node.Mark();
    const std::string line = mark.is_null() ? "" : absl::StrCat(":", mark.line + 1);
    throw CLI::FileError(absl::StrCat(FileName(), line, ": ", problem));
  }

  YAML::Node Section(const YAML::Node& document) const {
    if (section_.empty() || document.IsNull()) return document;
    if (!document.IsMap()) Fail(document, absl::StrCat("expected a map with a section \"", section_, "\""));
    const YAML::Node section = document[section_];
    if (!section.IsDefined()) Fail(document, absl::StrCat("there is no section \"", section_, "\""));
    return section;
  }

  // `path` names the map for messages; `parents` are the subcommands around it.
  void ReadOptions(const YAML::Node& map, const CLI::App& app, const std::string& path,
                   const std::vector<std::string>& parents, std::vector<CLI::ConfigItem>& items) const {
    if (!map.IsMap()) Fail(map, absl::StrCat("expected a map of options in \"", path, "\""));
    for (const auto& entry : map) {
      const std::string key = entry.first.as<std::string>();
      const std::string entry_path = path.empty() ? key : absl::StrCat(path, ".", key);
      const std::string name = absl::StrReplaceAll(key, {{"_", "-"}});
      const CLI::Option* option = FindOption(app, key, name);
      if (option == nullptr) {
        const CLI::App* subcommand = FindSubcommand(app, key, name);
        if (subcommand == nullptr || !entry.second.IsMap()) {
          Fail(entry.first,
               absl::StrCat("unknown option \"", entry_path, "\"", DidYouMean(name, KeysOf(app))));
        }
        std::vector<std::string> inner = parents;
        inner.push_back(subcommand->get_name());
        ReadOptions(entry.second, *subcommand, entry_path, inner, items);
        continue;
      }
      CLI::ConfigItem item;
      item.parents = parents;
      item.name = option->get_lnames().front();
      item.inputs = Values(entry.second, entry_path);
      // CLI11 would let the file beat the environment.
      if (!IsSetInEnvironment(*option)) items.push_back(std::move(item));
    }
  }

  const CLI::Option* FindOption(const CLI::App& app, const std::string& key, const std::string& name) const {
    for (const std::string& candidate : {name, key}) {
      const CLI::Option* option = app.get_option_no_throw("--" + candidate);
      if (option != nullptr && option->get_configurable()) return option;
    }
    return nullptr;
  }

  // Long names of options, and subcommands.
  static std::vector<std::string> KeysOf(const CLI::App& app) {
    std::vector<std::string> keys;
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_configurable() && !option->get_lnames().empty())
        keys.push_back(option->get_lnames().front());
    }
    for (const CLI::App* subcommand : SubcommandsOf(app)) keys.push_back(subcommand->get_name());
    return keys;
  }

  const CLI::App* FindSubcommand(const CLI::App& app, const std::string& key, const std::string& name) const {
    for (const CLI::App* subcommand : SubcommandsOf(app)) {
      if (subcommand->check_name(name) || subcommand->check_name(key)) return subcommand;
    }
    return nullptr;
  }

  std::vector<std::string> Values(const YAML::Node& node, const std::string& path) const {
    if (node.IsScalar()) return {node.Scalar()};
    if (!node.IsSequence() || node.size() == 0)
      Fail(node, absl::StrCat("\"", path, "\" needs a value or a list"));
    std::vector<std::string> values;
    for (const YAML::Node& element : node) {
      if (!element.IsScalar()) Fail(element, absl::StrCat("\"", path, "\" must be a list of plain values"));
      values.push_back(element.Scalar());
    }
    return values;
  }

  const CLI::App* app_;
  std::string section_;
};

// A YAML file is read when this has read it: none waits for a pipe, or fills the memory.
std::string CheckConfigFile(const std::string& path) {
  constexpr uint64_t kMaxBytes = 1 << 20;
  const absl::Status status = ReadTextFile(path, kMaxBytes).status();
  // CLI11 has words of its own for a file that is not there.
  if (!status.ok() && !absl::IsNotFound(status)) throw CLI::FileError(std::string(status.message()));
  return "";
}

void AddEnvironmentAndConfig(CLI::App& app, const std::string& environment_section,
                             const std::string& yaml_section) {
  const std::string config_environment = EnvironmentName(environment_section, "config");
  const char* from_environment = std::getenv(config_environment.c_str());
  const std::string default_file = from_environment == nullptr ? "" : from_environment;
  // A file that the environment names must be there, as one on the command line.
  app.set_config("--config", default_file,
                 yaml_section.empty()
                     ? "Read options from this YAML file"
                     : absl::StrCat("Read options from section \"", yaml_section, "\" of this YAML file"),
                 /*config_required=*/!default_file.empty())
      ->check(CLI::Validator(CheckConfigFile, ""));
  app.config_formatter(std::make_shared<YamlConfig>(&app, yaml_section));
  AddEnvironmentTwins(app, environment_section);
}

// ---------------------------------------------------------------- unknown words

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    if (IsHidden(*option)) continue;
    for (const std::string& name : option->get_lnames()) names.push_back(absl::StrCat("--", name));
  }
  return names;
}

// What is wrong with the first argument that no option and no command took; empty when it
// is not a word that could be meant for one.
std::string UnknownWord(const CLI::App& app) {
  const std::vector<std::string> left = app.remaining(/*recurse=*/true);
  if (left.empty()) return "";
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const std::string help = absl::StrCat(app.get_name(), chosen.empty() ? "" : " ",
                                        chosen.empty() ? "" : chosen.front()->get_name(), " --help");
  if (absl::StartsWith(left.front(), "--")) {
    std::vector<std::string> names =
        chosen.empty() ? std::vector<std::string>() : OptionNames(*chosen.front());
    for (const std::string& name : OptionNames(app)) names.push_back(name);
    const std::string written = left.front().substr(0, left.front().find('='));
    return absl::StrCat("there is no option ", written, DidYouMean(written, names), "\n", help,
                        " lists the options.");
  }
  if (absl::StartsWith(left.front(), "-") || !chosen.empty() || SubcommandsOf(app).empty()) return "";
  std::vector<std::string> names;
  for (const CLI::App* subcommand : SubcommandsOf(app)) names.push_back(subcommand->get_name());
  return absl::StrCat("there is no command \"", left.front(), "\"", DidYouMean(left.front(), names), "\n",
                      help, " lists the commands.");
}

// ---------------------------------------------------------------- description

OptionDescription DescribeOption(const CLI::Option& option) {
  OptionDescription description;
  description.is_positional = option.get_positional();
  if (description.is_positional) description.names.push_back(option.get_name(/*positional=*/true));
  for (const std::string& name : option.get_lnames()) description.names.push_back(absl::StrCat("--", name));
  for (const std::string& name : option.get_snames()) description.names.push_back(absl::StrCat("-", name));
  description.is_required = option.get_required();
  description.takes_value = option.get_items_expected_max() > 0;
  description.help = option.get_description();
  description.environment = option.get_envname();
  if (!description.takes_value) return description;
  const std::string type = option.get_type_name();
  description.value =
      absl::StrCat(type, option.get_default_str().empty() ? "" : "=", option.get_default_str());
  // IsMember describes itself as "{red,green}".
  const size_t begin = type.find('{'), end = type.find('}');
  if (begin != std::string::npos && end != std::string::npos && begin < end) {
    description.choices = absl::StrSplit(type.substr(begin + 1, end - begin - 1), ',');
  }
  return description;
}

CommandDescription DescribeApp(const CLI::App& app) {
  CommandDescription description;
  description.name = app.get_name();
  description.description = app.get_description();
  description.footer = app.get_footer();
  for (const CLI::Option* option : app.get_options()) {
    if (!IsHidden(*option)) description.options.push_back(DescribeOption(*option));
  }
  for (const CLI::App* subcommand : SubcommandsOf(app)) {
    if (!subcommand->get_group().empty()) description.subcommands.push_back(DescribeApp(*subcommand));
  }
  return description;
}

}  // namespace

Option Option::Required() const {
  option_->required();
  return *this;
}

Option Option::OneOf(const std::vector<std::string>& choices) const {
  option_->check(CLI::IsMember(choices));
  return *this;
}

Option Option::InRange(int smallest, int largest) const {
  option_->check(CLI::Range(smallest, largest));
  return *this;
}

Option Option::InRange(double smallest, double largest) const {
  option_->check(CLI::Range(smallest, largest));
  return *this;
}

Option Option::Positive() const {
  option_->check(CLI::PositiveNumber);
  return *this;
}

Option Option::NonNegative() const {
  option_->check(CLI::NonNegativeNumber);
  return *this;
}

Option Option::NotEmpty() const {
  option_->check(CLI::Validator(
      [](const std::string& text) {
        return absl::StripAsciiWhitespace(text).empty() ? std::string("is empty") : std::string();
      },
      ""));
  return *this;
}

Option Option::ExistingDirectory() const {
  option_->check(CLI::ExistingDirectory);
  return *this;
}

Option Option::ByteSuffixes(ByteUnits units) const {
  const CLI::AsSizeValue read(/*kb_is_1000=*/units == ByteUnits::kKiloIs1000);
  // CLI11 alone reads -5 as 2^64 - 5.
  const auto check = [read](std::string& text) {
    return text.find('-') == std::string::npos ? read(text) : std::string("must be at least 0");
  };
  option_->transform(CLI::Validator(check, read.get_description(), read.get_name()));
  return *this;
}

Option Option::SplitAt(char delimiter) const {
  option_->delimiter(delimiter);
  return *this;
}

Option Option::OneValueEachTime() const {
  option_->allow_extra_args(false);
  return *this;
}

Option Option::Excludes(Option other) const {
  option_->excludes(other.option_);
  return *this;
}

Option Option::Environment(const std::string& variable) const {
  option_->envname(variable);
  return *this;
}

Option Option::DefaultText(const std::string& text) const {
  option_->default_str(text);
  return *this;
}

bool Option::given() const { return option_->count() > 0; }

// CLI11's own reading takes 010 for 8, and -1 for the largest of unsigned numbers.
template <std::integral T>
std::string CheckInteger(const std::string& text) {
  T value;
  const size_t first = text.find_first_not_of("+-");
  const bool octal = first != std::string::npos && text[first] == '0' && first + 1 < text.size();
  if (!octal && absl::SimpleAtoi(text, &value)) return "";
  return std::is_unsigned_v<T> ? text + " is not a whole number from 0 on" : text + " is not a whole number";
}

template <OptionValue T>
Option Command::AddOption(const std::string& names, T& value, const std::string& help) const {
  CLI::Option* const option = app_->add_option(names, value, help);
  if constexpr (std::integral<T>) option->check(CLI::Validator(CheckInteger<T>, ""));
  if constexpr (requires { value.push_back({}); }) {
    if (value.empty()) return Option(option);  // CLI11 would show "[]".
  }
  if constexpr (!std::same_as<T, std::optional<int>>) option->capture_default_str();
  return Option(option);
}

template Option Command::AddOption(const std::string&, std::string&, const std::string&) const;
template Option Command::AddOption(const std::string&, int&, const std::string&) const;
template Option Command::AddOption(const std::string&, unsigned&, const std::string&) const;
template Option Command::AddOption(const std::string&, long&, const std::string&) const;
template Option Command::AddOption(const std::string&, long long&, const std::string&) const;
template Option Command::AddOption(const std::string&, unsigned long&, const std::string&) const;
template Option Command::AddOption(const std::string&, unsigned long long&, const std::string&) const;
template Option Command::AddOption(const std::string&, float&, const std::string&) const;
template Option Command::AddOption(const std::string&, double&, const std::string&) const;
template Option Command::AddOption(const std::string&, std::optional<int>&, const std::string&) const;
template Option Command::AddOption(const std::string&, std::vector<std::string>&, const std::string&) const;
template Option Command::AddOption(const std::string&, std::vector<int>&, const std::string&) const;

Option Command::AddFlag(const std::string& names, bool& value, const std::string& help) const {
  return Option(app_->add_flag(names, value, help));
}

Option Command::AddOption(const std::string& names, std::function<void(const std::string&)> store,
                          const std::string& help) const {
  return Option(app_->add_option_function<std::string>(names, std::move(store), help));
}

Command Command::AddSubcommand(const std::string& name, const std::string& description) const {
  return Command(app_->add_subcommand(name, description));
}

void Command::OnChosen(std::function<void()> callback) const { app_->callback(std::move(callback)); }

std::map<std::string, std::string> Command::Values() const {
  std::map<std::string, std::string> values;
  for (const CLI::Option* option : app_->get_options()) {
    values[option->get_single_name()] =
        option->count() > 0 ? absl::StrJoin(option->results(), "\n") : option->get_default_str();
  }
  return values;
}

void Command::SetFooter(const std::string& text) const { app_->footer(text); }

std::vector<Command> Command::Subcommands() const {
  std::vector<Command> subcommands;
  for (CLI::App* app : SubcommandsOf(*app_)) subcommands.emplace_back(app);
  return subcommands;
}

CommandLine::CommandLine(const std::string& description, const std::string& name)
    : app_(std::make_unique<CLI::App>(description, name)) {}

CommandLine::~CommandLine() = default;

Command CommandLine::root() const { return Command(app_.get()); }

void CommandLine::SetVersion(const std::string& text) {
  app_->set_version_flag("--version", text);
  const auto print = [this, text] { throw CLI::CallForVersion(ManualPage(Describe(), text), 0); };
  app_->add_flag_callback("--manual-page", print)->group("")->configurable(false);
}

void CommandLine::RequireSubcommand() {
  app_->require_subcommand(1);
  app_->fallthrough();  // which subcommands inherit when they are added
  for (CLI::App* subcommand : SubcommandsOf(*app_)) subcommand->fallthrough();
}

void CommandLine::UseEnvironmentAndConfig(const std::string& environment_section,
                                          const std::string& yaml_section) {
  environment_and_yaml_sections_.emplace(environment_section, yaml_section);
}

std::optional<int> CommandLine::Parse(int argc, const char* const* argv, std::ostream& out,
                                      std::ostream& err) {
  try {
    if (environment_and_yaml_sections_.has_value()) {
      const auto& [environment_section, yaml_section] = *environment_and_yaml_sections_;
      AddEnvironmentAndConfig(*app_, environment_section, yaml_section);
    }
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const auto code = static_cast<CLI::ExitCodes>(error.get_exit_code());
    const bool may_be_a_typing_error =
        code == CLI::ExitCodes::ExtrasError || code == CLI::ExitCodes::RequiredError;
    if (const std::string unknown = UnknownWord(*app_); may_be_a_typing_error && !unknown.empty()) {
      err << app_->get_name() << ": " << unknown << std::endl;
      return error.get_exit_code();
    }
    return app_->exit(error, out, err);
  }
  return std::nullopt;
}

std::optional<int> CommandLine::Parse(int argc, const char* const* argv) {
  return Parse(argc, argv, std::cout, std::cerr);
}

CommandDescription CommandLine::Describe() const { return DescribeApp(*app_); }

}  // namespace mechinterp
