#ifndef CLIENTS_LIB_PROMPTS_H_
#define CLIENTS_LIB_PROMPTS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "mechinterp/v1/prompt.pb.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// Two requests of one form, one harmful and one not. Only requests; never an
// answer.
struct PromptPair {
  std::string id;
  std::string category;
  std::string harmful;
  std::string harmless;

  const std::string& prompt(v1::PromptClass prompt_class) const {
    return prompt_class == v1::PROMPT_CLASS_HARMFUL ? harmful : harmless;
  }
};

// Reads a prompt file, {"version": 1, "pairs": [{"id", "category", "harmful",
// "harmless"}, ...]}, and returns its first `limit` pairs (all when 0).
// Errors name the file: NotFound, or InvalidArgument listing the pairs at
// fault: a missing or empty field, an id that occurs twice.
absl::StatusOr<std::vector<PromptPair>> LoadPromptPairs(const std::string& path, int limit = 0);

// A chat of one user message, after a system message unless `system` is empty.
v1::Prompt UserPrompt(std::string_view message, std::string_view system = "");

// Short hash of the pairs' contents, to tell two sets apart. Not cryptographic.
std::string DigestOf(const std::vector<PromptPair>& pairs);

// "harmful", "harmless", "borderline".
std::string_view PromptClassName(v1::PromptClass prompt_class);

// InvalidArgument, with the place, when a text is not UTF-8: no message can carry it.
absl::Status CheckUtf8(std::string_view what, const std::string& text);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_PROMPTS_H_
