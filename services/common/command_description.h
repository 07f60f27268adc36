#ifndef SERVICES_COMMON_COMMAND_DESCRIPTION_H_
#define SERVICES_COMMON_COMMAND_DESCRIPTION_H_

#include <string>
#include <vector>

namespace mechinterp {

// What a program's command line takes, as plain values: what manual pages and completions
// are made from. Options that --help hides are left out.

struct OptionDescription {
  std::vector<std::string> names;  // "--quiet", "-q"; of a positional argument its one name
  bool is_positional = false;
  bool is_required = false;
  bool takes_value = false;
  std::string value;                 // as --help shows it: "TEXT:{red,green}=green"
  std::vector<std::string> choices;  // "red", "green"; empty where any value may stand
  std::string help;
  std::string environment;  // the variable that stands for it, if there is one
};

struct CommandDescription {
  std::string name;
  std::string description;
  std::string footer;
  std::vector<OptionDescription> options;
  std::vector<CommandDescription> subcommands;
};

}  // namespace mechinterp

#endif  // SERVICES_COMMON_COMMAND_DESCRIPTION_H_
