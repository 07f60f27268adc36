#ifndef CLIENTS_COMMANDS_PROMPT_FLAGS_H_
#define CLIENTS_COMMANDS_PROMPT_FLAGS_H_

#include <istream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/common/command_line.h"

namespace mechinterp {

// What is wrong with an option: INVALID_ARGUMENT, naming it.
absl::Status FlagError(const std::string& flag, const std::string& problem);

// How a prompt is given on a command line.
struct PromptFlags {
  std::vector<std::string> words;
  std::string system;
  bool raw = false;
  std::string token_ids;

  void AddTo(Command command);
  // The prompt of the flags, its text read from `in` when none was given.
  // InvalidArgument for an empty prompt or flags that contradict each other.
  absl::StatusOr<v1::Prompt> Read(std::istream& in) const;
  // Another prompt of the same form (chat or raw text).
  v1::Prompt Wrap(const std::string& text) const;
};

// How continuations are chosen on a command line.
struct SamplingFlags {
  int max_new_tokens = 64;
  double temperature = 0;
  int top_k = 0;
  double top_p = 1;
  uint64_t seed = 0;
  bool ignore_stop_tokens = false;

  void AddTo(Command command);
  v1::SamplingOptions ToProto() const;
};

}  // namespace mechinterp

#endif  // CLIENTS_COMMANDS_PROMPT_FLAGS_H_
