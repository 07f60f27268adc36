#include "services/common/command_line.h"

#include <cstdlib>
#include <istream>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "yaml-cpp/yaml.h"

namespace mechinterp {
namespace {

std::vector<CLI::App*> Subcommands(const CLI::App& app) {
  // The overload without a filter lists only those on the command line.
  return const_cast<CLI::App&>(app).get_subcommands([](CLI::App*) { return true; });
}

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
    if (option == app.get_help_ptr() || option == app.get_version_ptr() || option->get_lnames().empty() ||
        !option->get_envname().empty()) {
      continue;
    }
    option->envname(EnvironmentName(section, option->get_lnames().front()));
  }
  for (CLI::App* subcommand : Subcommands(app)) AddEnvironmentTwins(*subcommand, section);
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
          Fail(entry.first, absl::StrCat("unknown option \"", entry_path, "\""));
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

  const CLI::App* FindSubcommand(const CLI::App& app, const std::string& key, const std::string& name) const {
    for (const CLI::App* subcommand : Subcommands(app)) {
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

}  // namespace

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
                 /*config_required=*/!default_file.empty());
  app.config_formatter(std::make_shared<YamlConfig>(&app, yaml_section));
  AddEnvironmentTwins(app, environment_section);
}

}  // namespace mechinterp
