#ifndef CLIENTS_COMMANDS_EDIT_FLAGS_H_
#define CLIENTS_COMMANDS_EDIT_FLAGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/commands/prompt_flags.h"
#include "clients/lib/model_client.h"
#include "services/common/command_line.h"

namespace mechinterp {

// Interventions as a command line gives them: one edit, at every site that is named.
struct EditFlags {
  std::vector<std::string> sites;  // globs: "blocks.3.attn.hook_z", "blocks.*.hook_resid_pre"
  std::string heads;
  std::string dims;
  std::string positions;
  v1::InterventionScope scope = v1::INTERVENTION_SCOPE_UNSPECIFIED;
  std::string edit = "replace";
  std::vector<std::string> source_prompts;
  std::vector<std::string> source_handles;
  std::string source_positions;
  bool mean_by_position = false;
  std::string vector_file;  // "FILE.safetensors:NAME"
  std::string sender;       // of a path: a hook's name
  int sender_head = -1;     // -1: none
  double scale = 1;
  double factor = 0;
  double standard_deviation = 1;
  uint64_t seed = 0;

  void AddTo(Command command);
  // Asks the service for the sites; each gets its edit once, in the order of the forward pass
  // for each glob. `prompt` tells the form of source prompts.
  // InvalidArgument when the flags do not make interventions, naming the flag.
  absl::StatusOr<std::vector<v1::Intervention>> Make(ModelClient& client, const PromptFlags& prompt) const;
};

// Interventions from a file in protobuf's JSON: {"interventions": [...]}, or
// the list alone. Errors name the file.
absl::StatusOr<v1::InterventionSet> ReadInterventions(const std::string& path);

}  // namespace mechinterp

#endif  // CLIENTS_COMMANDS_EDIT_FLAGS_H_
