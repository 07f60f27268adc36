#include "services/engine/tokenizer/text_frame.h"

#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/json_fields.h"

namespace mechinterp::engine {
namespace {

// A class that makes the post-processor anew, and what it takes for granted.
struct FramingClass {
  std::string_view name;
  bool adds_bos_token;
  const char* bos_token;
  const char* eos_token;
};

constexpr FramingClass kFramingClasses[] = {
    {"LlamaTokenizer", true, "<s>", "</s>"},
    {"CodeLlamaTokenizer", true, "<s>", "</s>"},
    {"GemmaTokenizer", true, "<bos>", "<eos>"},
    {"CohereTokenizer", true, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"},
    {"GPTNeoXTokenizer", false, "<|endoftext|>", "<|endoftext|>"},
};

const FramingClass* FindFramingClass(std::string_view name) {
  constexpr std::string_view kFast = "Fast";
  if (name.size() > kFast.size() && name.substr(name.size() - kFast.size()) == kFast) {
    name.remove_suffix(kFast.size());
  }
  for (const FramingClass& known : kFramingClasses) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

absl::StatusOr<std::vector<TokenId>> TokenOf(const Tokenizer& tokenizer, const TokenizerConfig& config,
                                             const char* key, const char* if_absent) {
  const auto written = config.special_tokens.find(key);
  const std::string text = written == config.special_tokens.end() ? if_absent : written->second;
  const std::optional<TokenId> id = tokenizer.TokenToId(text);
  if (id.has_value()) return std::vector<TokenId>{*id};
  return absl::InvalidArgumentError(absl::StrCat("'add_", key, "' is true, and the ", key, " ", Quoted(text),
                                                 " is none of tokenizer.json's"));
}

std::string Named(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  if (ids.empty()) return "nothing";
  return absl::StrJoin(
      ids, " ", [&](std::string* out, TokenId id) { absl::StrAppend(out, Quoted(tokenizer.TokenText(id))); });
}

}  // namespace

absl::StatusOr<TextFrame> TextFrameOf(const Tokenizer& tokenizer, const TokenizerConfig& config) {
  const TextFrame of_file{tokenizer.tokens_before(), tokenizer.tokens_after(), {}};
  const FramingClass* framing = FindFramingClass(config.tokenizer_class);
  if (framing == nullptr || !(config.add_bos_token.has_value() || config.add_eos_token.has_value())) {
    return of_file;
  }
  TextFrame frame;
  if (config.add_bos_token.value_or(framing->adds_bos_token)) {
    ABSTRACT_ASSIGN_OR_RETURN(frame.before, TokenOf(tokenizer, config, "bos_token", framing->bos_token));
  }
  if (config.add_eos_token.value_or(false)) {
    ABSTRACT_ASSIGN_OR_RETURN(frame.after, TokenOf(tokenizer, config, "eos_token", framing->eos_token));
  }
  if (frame.before != of_file.before || frame.after != of_file.after) {
    frame.remark =
        absl::StrCat("add_bos_token and add_eos_token, with ", AbslView(framing->name),
                     ", go before tokenizer.json's post-processor: around a raw text stand ",
                     Named(tokenizer, frame.before), " and ", Named(tokenizer, frame.after), ", not ",
                     Named(tokenizer, of_file.before), " and ", Named(tokenizer, of_file.after));
  }
  return frame;
}

}  // namespace mechinterp::engine
