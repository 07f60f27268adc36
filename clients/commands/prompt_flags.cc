#include "clients/commands/prompt_flags.h"

#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "clients/lib/prompts.h"
#include "clients/lib/selectors.h"
#include "services/common/status_macros.h"

namespace mechinterp {

absl::Status FlagError(const std::string& flag, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", problem));
}

void PromptFlags::AddTo(Command command) {
  command.AddOption("prompt", words, "What to say to the model; - or nothing: read from the standard input");
  command.AddOption("--system", system, "A system message before it");
  command.AddFlag("--raw", raw, "Raw text to continue, not a chat message");
  command.AddOption("--token-ids", token_ids, "Token ids instead of text, as in 1,2,3 or 5:9").NotEmpty();
}

absl::StatusOr<v1::Prompt> PromptFlags::Read(std::istream& in) const {
  if ((raw || !token_ids.empty()) && !system.empty()) {
    return absl::InvalidArgumentError("--system needs a chat; leave out --raw and --token-ids");
  }
  if (!token_ids.empty()) {
    if (raw || !words.empty()) return absl::InvalidArgumentError("--token-ids takes the place of a text");
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, ParseIndices(token_ids));
    v1::Prompt prompt;
    prompt.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    return prompt;
  }
  std::string text = absl::StrJoin(words, " ");
  if (text.empty() || text == "-") {
    text.assign(std::istreambuf_iterator<char>(in), {});
    if (!raw) absl::StripAsciiWhitespace(&text);
  }
  if (text.empty()) return absl::InvalidArgumentError("the prompt is empty");
  ABSTRACT_RETURN_IF_ERROR(CheckUtf8("the prompt", text));
  ABSTRACT_RETURN_IF_ERROR(CheckUtf8("--system", system));
  return Wrap(text);
}

v1::Prompt PromptFlags::Wrap(const std::string& text) const {
  if (!raw) return UserPrompt(text, system);
  v1::Prompt prompt;
  prompt.set_text(text);
  return prompt;
}

void SamplingFlags::AddTo(Command command) {
  command.AddOption("--max-new-tokens", max_new_tokens, "Longest continuation").InRange(1, 1 << 20);
  command.AddOption("--temperature", temperature, "Sampling temperature; 0: greedy").NonNegative();
  command.AddOption("--top-k", top_k, "Sample from the k most likely tokens; 0: from all").NonNegative();
  command.AddOption("--top-p", top_p, "Sample from the smallest set of tokens with this total probability")
      .InRange(0.0, 1.0);
  command.AddOption("--seed", seed, "Seed of the sampling");
  command.AddFlag("--ignore-stop-tokens", ignore_stop_tokens, "Continue past the model's stop tokens");
}

v1::SamplingOptions SamplingFlags::ToProto() const {
  v1::SamplingOptions options;
  options.set_max_new_tokens(static_cast<uint32_t>(max_new_tokens));
  options.set_temperature(temperature);
  options.set_top_k(static_cast<uint32_t>(top_k));
  options.set_top_p(top_p);
  options.set_seed(seed);
  options.set_ignore_stop_tokens(ignore_stop_tokens);
  return options;
}

}  // namespace mechinterp
