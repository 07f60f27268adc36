#ifndef SERVICES_COMMON_COMMAND_LINE_H_
#define SERVICES_COMMON_COMMAND_LINE_H_

#include <string>

#include "CLI/CLI.hpp"

namespace mechinterp {

// What every program of the project does with its options, on top of CLI11:
// each long flag of `app` and its subcommands gets an environment twin
// (`--listen-address` in section "MODEL": ABSTRACT_MODEL_LISTEN_ADDRESS; with an
// empty section: ABSTRACT_LISTEN_ADDRESS), and `--config FILE` reads a YAML file
// whose top-level map `yaml_section` holds options by their long names with '_'
// or '-'. Command line beats environment beats file beats default. Call once,
// after all options were added and before parsing. A YAML file that cannot be
// read, or names an option that does not exist, is a CLI::ParseError that says so.
void AddEnvironmentAndConfig(CLI::App& app, const std::string& environment_section,
                             const std::string& yaml_section);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_COMMAND_LINE_H_
