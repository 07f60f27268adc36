#ifndef SERVICES_ENGINE_TOKENIZER_TOKENIZER_CONFIG_H_
#define SERVICES_ENGINE_TOKENIZER_TOKENIZER_CONFIG_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mechinterp::engine {

// What a checkpoint says about its tokenizer outside tokenizer.json. Everything
// is empty where the checkpoint says nothing.
struct TokenizerConfig {
  // The token's text, "<|begin_of_text|>".
  std::string begin_of_text;
  // The published chat template, a Jinja text.
  std::string chat_template;
  // Of the templates, where several are published; chat_template is the one called "default".
  std::vector<std::string> template_names;
  // What chat templates call special tokens ("bos_token", "eos_token"), and their texts.
  std::map<std::string, std::string> special_tokens;
  // The class of transformers that reads the tokenizer, "LlamaTokenizerFast", and whether
  // it is to put bos_token before a text and eos_token after it.
  std::string tokenizer_class;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
};

// Reads tokenizer_config.json, and chat_template.jinja, where newer checkpoints
// keep the template; both are optional. Of several templates the one called
// "default" counts. Errors: InvalidArgument naming the file and the key that is
// malformed, NotFound for a link that leads nowhere.
absl::StatusOr<TokenizerConfig> LoadTokenizerConfig(const std::string& directory);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_TOKENIZER_CONFIG_H_
